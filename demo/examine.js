// node examine.js FOLDER: whether the page reads texts as an export of distillery was taught to; a line and exit code 1 if not.

import { readFileSync } from "node:fs";
import { Reader } from "./src/reader.js";
import { Encoder } from "./src/tokens.js";

const read = (name) => JSON.parse(readFileSync(`${process.argv[2]}/${name}`, "utf8"));
const golden = read("golden.json");
try {
  const reader = new Reader(null, new Encoder(read("tokenizer.json"), read("tokenizer_config.json")), golden.max_length);
  const others = golden.inputs.filter(
    ({ texts, input_ids }) => String(reader.asRecorded(...texts, golden.max_length).ids) !== String(input_ids),
  );
  if (others.length) fail(`cuts ${others.length} of ${golden.inputs.length} recorded texts into other tokens than Python`);
} catch (error) {
  fail(error.message);
}

function fail(reason) {
  console.error(reason);
  process.exit(1);
}
