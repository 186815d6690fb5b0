// Sentences that contain what is typed. Without this script all of them are shown.
const box = document.getElementById("find");
if (box) {
  box.hidden = false;
  const input = box.querySelector("input"), count = box.querySelector("output");
  const sentences = [...document.querySelectorAll("article.sentence")];
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const sentence of sentences) {
      sentence.hidden = !sentence.dataset.text.includes(wanted);
      shown += !sentence.hidden;
    }
    count.textContent = `${shown} of ${sentences.length}`;
  });
}
