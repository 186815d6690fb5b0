// Where the models run, so that the page stays responsive: opens them, checks them, answers questions, one thing at a time.
//
// In:  {type: "start", site, backend}, {type: "load", which}, {type: "ask", id, which, question, text}, {type: "stop", id}
// Out: {type: "progress", which, done, total} (without numbers: it is being opened), {type: "ready" | "checked", which, ...verdict},
//      {type: "failed", which, message}, {type: "window", id, done, total},
//      {type: "answer", id, which, ...}, {type: "refused", id, which, message}

import { readFile, remember, remembered } from "./files.js";
import { Check, ENOUGH } from "./golden.js";
import { InputProblem, Reader } from "./reader.js";
import { openModel, openRuntime } from "./runtime.js";
import { Encoder } from "./tokens.js";

let site, backend, runtime;
const models = {}; // which -> {reader, check, golden, key}
const opening = []; // models whose bytes have come
const questions = [];
const stopped = new Set();
let wake = () => {};

self.onmessage = ({ data }) => {
  if (data.type === "start") ({ site, backend } = data);
  if (data.type === "load") load(data.which);
  if (data.type === "ask") questions.push(data);
  if (data.type === "stop") stopped.add(data.id);
  wake();
};

async function load(which) {
  const { onnx, tokenizer, tokenizerConfig, golden } = site.models[which];
  const { wasm } = site.runtime[backend];
  const come = { runtime: 0, model: 0 };
  const progress = (what) => (bytes) => {
    come[what] = bytes;
    const [done, total] = [come.runtime + come.model, onnx.bytes + (come.runtime && wasm.bytes)];
    self.postMessage({ type: "progress", which, done, total });
  };
  try {
    runtime ??= openRuntime(backend, site.runtime, progress("runtime"));
    const json = Promise.all([tokenizer, tokenizerConfig, golden].map(readJson));
    const [bytes, [content, config, recorded]] = await Promise.all([readFile(onnx, progress("model")), json, runtime]);
    opening.push({ which, bytes, encoder: new Encoder(content, config), golden: recorded });
    wake();
  } catch (error) {
    failed(which, error);
  }
}

async function readJson(file) {
  return JSON.parse(new TextDecoder().decode(await readFile(file)));
}

function failed(which, error) {
  const bytes = site.models[which].onnx.bytes;
  self.postMessage({ type: "failed", which, message: inWords(error, bytes) });
}

/** The library's errors are texts, and sometimes numbers. */
function inWords(error, bytes) {
  const text = String(error?.message ?? error);
  if (error instanceof RangeError || /memory|bad_alloc|OOM|allocat/i.test(text) || typeof error === "number") {
    return `There is not enough memory for this model of ${Math.ceil(bytes / 1e6)} MB (${text}). Close other pages and reload.`;
  }
  return text;
}

async function open({ which, bytes, encoder, golden }) {
  try {
    const { ort, key } = await runtime;
    self.postMessage({ type: "progress", which });
    const { name, onnx, tokenizer, golden: file } = site.models[which];
    const run = await openModel(ort, backend, bytes);
    const verdictKey = [onnx.sha256, tokenizer.sha256, file.sha256, key].join(" ");
    const reader = new Reader(run, encoder, golden.max_length);
    models[which] = { which, reader, golden, check: new Check(golden, name), verdictKey };
    const known = await remembered(verdictKey);
    if (!known) return;
    models[which].check = { isOver: true, done: known.done, problem: "" };
    await run({ input_ids: [0, 0], attention_mask: [1, 1], token_type_ids: [0, 0] }); // the first run is slower
    self.postMessage({ type: "checked", which, ...known, isKnown: true });
  } catch (error) {
    failed(which, error);
  }
}

async function checkNext({ which, reader, golden, check, verdictKey }) {
  try {
    await reader.checkNext(check, golden);
  } catch (error) {
    delete models[which];
    return failed(which, error);
  }
  const { verdict } = check;
  if (check.isOver) {
    self.postMessage({ type: "checked", which, ...verdict });
    if (!verdict.problem) await remember(verdictKey, verdict);
  } else {
    self.postMessage({ type: check.done < ENOUGH ? "checking" : "ready", which, ...verdict });
  }
}

async function answer({ id, which, question, text }) {
  const message = { id, which };
  const began = performance.now();
  try {
    const found = await models[which].reader.answer(question, text, async (done, total) => {
      if (total > 1) {
        self.postMessage({ type: "window", id, which, done, total });
        await breath();
      }
      return stopped.has(id) ? "stop" : "go on";
    });
    if (found) self.postMessage({ type: "answer", ...message, ...found, milliseconds: performance.now() - began });
  } catch (error) {
    const words = error instanceof InputProblem ? error.message : inWords(error, site.models[which].onnx.bytes);
    self.postMessage({ type: "refused", ...message, message: words });
  }
}

/** Lets messages in that came while a model ran. */
function breath() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

function mayAnswer({ which }) {
  const check = models[which]?.check;
  return check && !check.problem && (check.isOver || check.done >= ENOUGH);
}

async function serve() {
  for (;;) {
    await breath();
    const place = questions.findIndex(mayAnswer);
    const unchecked = Object.values(models).find(({ check }) => !check.isOver);
    if (place >= 0) await answer(questions.splice(place, 1)[0]);
    else if (opening.length) await open(opening.shift());
    else if (unchecked) await checkNext(unchecked);
    else await new Promise((resolve) => (wake = resolve));
  }
}

serve();
