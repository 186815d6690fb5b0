// src/ and the libraries of package.json -> dist/: what every site has, models aside. `python -m demo.build` makes a site of it.

import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const RUNTIME = "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded";
const LIBRARIES = ["onnxruntime-web", "onnxruntime-common", "@huggingface/tokenizers"];

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist/runtime", { recursive: true });
await build({
  entryPoints: ["src/page.js", "src/worker.js", "src/page.css"],
  bundle: true,
  splitting: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: "dist/app",
  conditions: ["onnxruntime-web-use-extern-wasm"], // its .wasm stays a file of its own, which its threads load too
  legalComments: "none", // licences.txt has them all
});
for (const name of ["index.html", "service-worker.js"]) cpSync(`src/${name}`, `dist/${name}`);
for (const ending of [".mjs", ".wasm", ".asyncify.mjs", ".asyncify.wasm"]) {
  cpSync(`${RUNTIME}${ending}`, `dist/runtime/ort-wasm-simd-threaded${ending}`);
}
const { version } = JSON.parse(readFileSync("node_modules/onnxruntime-web/package.json", "utf8"));
writeFileSync("dist/runtime.json", JSON.stringify({ version }));
writeFileSync("dist/app/licences.txt", LIBRARIES.map(licence).join("\n\n"));

function licence(name) {
  const folder = `node_modules/${name}`;
  const { version: ofLibrary, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const own = readdirSync(folder).filter((file) => /^(licen[cs]e|notice)/i.test(file));
  const texts = own.length ? own.map((file) => `${folder}/${file}`) : ["src/mit.txt"]; // onnxruntime's have no file of it
  const title = `${name} ${ofLibrary}, ${license}`;
  return [title, "=".repeat(title.length), ...texts.map((file) => readFileSync(file, "utf8"))].join("\n\n");
}
