// The page: what its user writes and reads. The models are in worker.js.

import { $, megabytes, rowOf, say, sayState, time, titleOf, warn } from "./display.js";
import { canKeep, keepAll } from "./files.js";
import { rounded } from "./golden.js";
import { missing, numThreads } from "./runtime.js";

const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU" };
const BACKEND = "distillery-backend"; // what the user chose, for the next time

let site, worker, asked;
let backend = "wasm";
let keeping; // the promise that everything is kept
const states = {}; // which -> "loading", "ready", "failed"
let lastId = 0;

async function start() {
  const problem = missing();
  if (problem) return giveUp(problem);
  try {
    site = await readSite();
  } catch (error) {
    return giveUp(`site.json is missing or damaged (${error.message}). Build the site again: python -m demo.build`);
  }
  const { student, teacher } = site.models;
  $("student").querySelector("h3").textContent = titleOf(student);
  if (teacher) {
    $("teacher").hidden = false;
    $("teacher").querySelector("h3").textContent = titleOf(teacher);
    $("load-teacher").textContent = `Load the teacher (${megabytes(teacher.onnx.bytes)}) to compare`;
  }
  sayEnvironment();
  if (stored(BACKEND) === "webgpu") $("backend").value = backend = "webgpu";
  startWorker();
}

/** site.json, the addresses of its files made absolute: workers have another base than the page. */
async function readSite() {
  const response = await fetch("site.json", { cache: "no-cache" });
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return JSON.parse(await response.text(), (key, value) =>
    value?.path ? { ...value, url: new URL(value.path, document.baseURI).href } : value,
  );
}

function startWorker() {
  worker?.terminate();
  const wanted = ["student", ...(states.teacher ? ["teacher"] : [])];
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => HANDLERS[data.type](data);
  worker.onerror = (event) => {
    const message = `The part of the page that runs the model has stopped (${event.message || "it could not be loaded"}). Reload the page.`;
    for (const which of wanted) HANDLERS.failed({ which, message });
  };
  worker.postMessage({ type: "start", site, backend });
  for (const which of wanted) load(which);
}

function load(which) {
  states[which] = "loading";
  sayState(which, "Loading.");
  worker.postMessage({ type: "load", which });
}

const HANDLERS = {
  progress({ which, done, total }) {
    const words = total ? `Fetching: ${megabytes(done)} of ${megabytes(total)}.` : "Opening the model.";
    sayState(which, words, done, total);
  },
  checking(verdict) {
    sayState(verdict.which, `Checking: ${verdict.done} of ${verdict.total} recorded questions.`, verdict.done, verdict.total);
  },
  ready(verdict) {
    const { which, done, total } = verdict;
    becomeReady(which);
    sayState(which, `Ready. Right so far in ${done} of ${total} recorded questions; the check goes on.`, done, total);
  },
  checked(verdict) {
    const { which, problem, sameAnswers, total, maxDifference, bound, isKnown } = verdict;
    if (problem) return isWrong(which, problem);
    becomeReady(which);
    sayState(
      which,
      `Ready. ${NAMES[backend]} computes here what was exported${isKnown ? " (checked at an earlier visit)" : ""}: ` +
        `${sameAnswers} of ${total} recorded answers are the same, outputs differ by ${rounded(maxDifference)} at most, ` +
        `${rounded(bound)} is allowed.`,
    );
  },
  failed({ which, message }) {
    if (backend === "webgpu") return fallBack(`WebGPU does not run here (${message})`);
    states[which] = "failed";
    sayState(which, message);
    if (which === "student") giveUp(message);
  },
  window({ id, which, done, total }) {
    if (id !== asked?.id) return;
    // Said once: a screen reader would read out every window.
    if (!done) say(`A long text: the ${which} reads it in ${total} windows.`);
    Object.assign($("windows"), { max: total, value: done, hidden: false });
    $("stop").hidden = false;
  },
  answer(found) {
    if (found.id !== asked?.id) return;
    asked.found[found.which] = found;
    showAnswers();
    askNext();
  },
  refused({ id, message }) {
    if (id !== asked?.id) return;
    asked.left = [];
    askNext();
    say(message);
  },
};

function becomeReady(which) {
  if (states[which] === "ready") return;
  states[which] = "ready";
  if (which === "student") {
    if (!asked) say("Ask away.");
    keeping ??= keepForLater(); // not before: everything would be fetched twice
  } else if (asked?.found.student && !asked.left.length) {
    asked.left.push(which);
    askNext();
  }
}

/** A backend that computes something else: another one, or none. */
function isWrong(which, problem) {
  if (backend === "webgpu") return fallBack(`WebGPU computes something else than was exported: ${problem}`);
  states[which] = "failed";
  const message = `The ${which} is not used: WebAssembly computes something else than was exported (${problem}).`;
  sayState(which, message);
  if (which === "student") giveUp(`${message} A wrong answer would look like any other, so there is none.`);
}

function fallBack(reason) {
  backend = $("backend").value = "wasm";
  withdraw();
  warn(`${reason}. WebAssembly is used instead.`);
  startWorker();
}

/** Nothing can be asked any more. */
function giveUp(message) {
  withdraw();
  say("There is no answer: see the message above.");
  warn(message);
  $("ask").disabled = true;
}

function withdraw() {
  asked = undefined;
  $("figures").hidden = $("passage").hidden = true;
  endReading();
  say("The model is being loaded.");
}

function ask(event) {
  event?.preventDefault();
  const [text, question] = [$("text").value, $("question").value];
  const problems = { text: text.trim() ? "" : "Paste or type a text first.", question: question.trim() ? "" : "Type a question." };
  for (const [id, problem] of Object.entries(problems)) {
    $(`${id}-problem`).textContent = problem;
    $(id).setAttribute("aria-invalid", String(Boolean(problem)));
  }
  const first = Object.keys(problems).find((id) => problems[id]);
  if (first) {
    $(first).focus();
    return;
  }
  if (asked) worker.postMessage({ type: "stop", id: asked.id });
  // The teacher is asked when the student has answered: neither's time is taken by the other.
  const left = ["student", "teacher"].filter((which) => states[which] && states[which] !== "failed");
  asked = { id: ++lastId, text, question, left, found: {} };
  $("figures").hidden = $("passage").hidden = true;
  say(states.student === "ready" ? "Reading." : "The answer comes when the model is loaded.");
  askNext();
}

function askNext() {
  const which = asked.left.shift();
  endReading();
  if (which) worker.postMessage({ type: "ask", which, id: asked.id, question: asked.question, text: asked.text });
}

function endReading() {
  $("stop").hidden = $("windows").hidden = true;
}

function showAnswers() {
  const { text, found } = asked;
  const models = Object.keys(found);
  const [best] = found.student.answers;
  const times = models.map((which) => `${which} ${time(found[which].milliseconds)}`);
  if (models.length > 1) times.push(`${(found.teacher.milliseconds / found.student.milliseconds).toFixed(1)} times as long`);
  const { numWindows } = found.student;
  const long = numWindows > 1 ? ` The text is long and was read in ${numWindows} windows.` : "";
  say(`${best.text ? `“${best.text}”` : "No answer was found."} (${times.join(", ")})${long}`);
  $("figures").tBodies[0].replaceChildren(...models.map((which) => rowOf(site.models[which], found[which])));
  const mark = document.createElement("mark");
  mark.textContent = text.slice(best.begin, best.behind);
  $("passage").replaceChildren(text.slice(0, best.begin), mark, text.slice(best.behind));
  $("figures").hidden = $("passage").hidden = false;
  $("passage").scrollTop = mark.offsetTop - $("passage").offsetTop - 40;
}

/** For times without a network; and a service worker, which gives the page its isolation the next time. */
async function keepForLater() {
  if (!canKeep || !navigator.serviceWorker) {
    $("offline").textContent = "Nothing is kept for the next visit: browsers allow that on https:// and localhost only.";
    return;
  }
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
    const isWhole = await keepAll(site.files, new URL("site.json", document.baseURI).href);
    $("offline").textContent = isWhole
      ? "Everything is kept in this browser: the page works without a network from now on."
      : "The browser has no room to keep the page: it needs a network the next time.";
    sayEnvironment(": reload it, and it will be");
  } catch (error) {
    $("offline").textContent = `The page is not kept for the next visit (${error.message}).`;
  }
}

function sayEnvironment(remedy = "") {
  const threads = numThreads();
  $("environment").textContent = crossOriginIsolated
    ? `WebAssembly has SIMD here and runs on ${threads} ${threads > 1 ? "threads" : "thread"}.`
    : `WebAssembly has SIMD here and runs on one thread, because the page is not cross-origin isolated${remedy}.`;
}

/** Some browsers forbid even asking. */
function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

$("form").addEventListener("submit", ask);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
});
$("stop").addEventListener("click", () => {
  worker.postMessage({ type: "stop", id: asked.id });
  asked = undefined;
  endReading();
  say("Stopped.");
  $("question").focus();
});
$("load-teacher").addEventListener("click", () => {
  $("load-teacher").hidden = true;
  load("teacher");
});
$("backend").addEventListener("change", ({ target }) => {
  backend = target.value;
  try {
    localStorage.setItem(BACKEND, backend);
  } catch {
    // Not remembered then.
  }
  $("alert").replaceChildren();
  $("ask").disabled = false;
  withdraw();
  startWorker();
});
start();
