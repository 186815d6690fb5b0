// Lines of JSON texts on the standard input -> lines of {ids, offsets}, offsets in code points as Python counts them.
import { readFileSync } from "node:fs";
import { Encoder } from "../../demo/src/tokens.js";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
const encoder = new Encoder(read("tokenizer.json"), read("tokenizer_config.json"));
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const text = JSON.parse(line);
  const { ids, offsets } = encoder.encode(text);
  const points = new Uint32Array(text.length + 1); // UTF-16 place -> code points before it
  for (let at = 0, count = 0; at <= text.length; at++) {
    points[at] = count;
    if (!(text.codePointAt(at) > 0xffff)) count++;
    else points[++at] = ++count;
  }
  console.log(JSON.stringify({ ids, offsets: offsets.map((pair) => pair.map((place) => points[place])) }));
}
