// What the page writes into itself.

/** The element of this id. */
export const $ = (id) => document.getElementById(id);

/** A backend's failure, and that of the one that took its place, are both there to read. */
export function warn(message) {
  const paragraph = document.createElement("p");
  paragraph.textContent = message;
  $("alert").append(paragraph);
}

export function rowOf(model, { answers, milliseconds }) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = titleOf(model);
  row.append(head);
  for (const value of [answers[0].text || "none", `${Math.round(100 * answers[0].probability)}%`, time(milliseconds)]) {
    row.insertCell().textContent = value;
  }
  return row;
}

export function sayState(which, words, done, total) {
  const place = $(which);
  place.querySelector(".state").textContent = words;
  const bar = place.querySelector("progress");
  bar.hidden = !(done < total);
  bar.setAttribute("aria-label", `Progress of the ${which}`);
  if (done < total) Object.assign(bar, { max: total, value: done });
}

export function say(words) {
  $("answer").textContent = words;
}

export function titleOf({ title, precision, onnx }) {
  return `${title}, ${precision}, ${megabytes(onnx.bytes)}`;
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

export function time(milliseconds) {
  return milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : `${Math.round(milliseconds)} ms`;
}
