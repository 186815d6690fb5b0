// onnxruntime-web: which build of it, on how many threads, and a model opened in it.

import { readFile } from "./files.js";

const MOST_THREADS = 4;
/** A function that makes 16 bytes out of one: what does not validate it has no SIMD. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

/** Why this browser cannot run anything here, or nothing. */
export function missing() {
  if (typeof WebAssembly === "undefined") return "This browser has no WebAssembly, which the model runs in. Use another one.";
  if (!WebAssembly.validate(new Uint8Array(SIMD))) {
    return "This browser's WebAssembly has no SIMD (128-bit vectors), which the model needs. Use a newer one.";
  }
  return "";
}

/** Threads need memory that they share, which browsers allow to isolated pages only. */
export function numThreads() {
  return globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
}

/** {ort, key}: the library, ready for sessions on "wasm" or "webgpu"; what a verdict depends on beside the model. */
export async function openRuntime(backend, { version, [backend]: files }, onBytes) {
  const device = backend === "webgpu" ? await webGpuName() : "";
  const ort = backend === "webgpu" ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = numThreads();
  ort.env.wasm.wasmPaths = { mjs: files.mjs.url, wasm: files.wasm.url };
  ort.env.wasm.wasmBinary = await readFile(files.wasm, onBytes);
  return { ort, key: [backend, version, numThreads(), device, navigator.userAgent].join(" ") };
}

async function webGpuName() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this browser has no WebGPU here");
  const { vendor, architecture, device, description } = adapter.info ?? {};
  return [vendor, architecture, device, description].join(" ");
}

/** The `run` of a Reader. Errors: whatever the library throws, as an Error. */
export async function openModel(ort, backend, bytes) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [backend], logSeverityLevel: 3 });
  for (const name of ["start_logits", "end_logits"]) {
    if (!session.outputNames.includes(name)) throw new Error(`the model has no output ${name}: it answers no questions`);
  }
  return async (inputs) => {
    const tensor = (name) => new ort.Tensor("int64", BigInt64Array.from(inputs[name], BigInt), [1, inputs[name].length]);
    const said = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, tensor(name)])));
    return { start_logits: said.start_logits.data, end_logits: said.end_logits.data };
  };
}
