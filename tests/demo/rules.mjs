// Lines of JSON on the standard input -> lines: what demo/src makes of {"spans": ...} or {"golden": ...}.
import { readFileSync } from "node:fs";
import { Check, bestSpan, largestDifference } from "../../demo/src/golden.js";
import { answersOf, windowsOf } from "../../demo/src/spans.js";

const WITHOUT_NUMBER = { nan: NaN, inf: Infinity };
const numbers = (list) => Float32Array.from(list, (value) => WITHOUT_NUMBER[value] ?? value);

function spans({ text, offsets, room, logits }) {
  const windows = windowsOf(offsets, room);
  const said = logits.map(([start, end]) => ({ start: numbers(start), end: numbers(end) }));
  return {
    windows: windows.map(({ first, offsets: { length }, mayStart }) => [first, length, mayStart]),
    answers: answersOf(text, windows, said),
  };
}

function golden({ content, file, outputs }) {
  const check = new Check(content, file);
  for (const row of check.order) {
    const { outputs: recorded, context, span } = content.inputs[row];
    const [starts, ends] = outputs[row].map(numbers);
    const difference = Math.max(
      largestDifference(starts, recorded.start_logits),
      largestDifference(ends, recorded.end_logits),
    );
    check.add(difference, String(bestSpan(starts, ends, ...context)) === String(span), true);
  }
  return check.verdict;
}

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const given = JSON.parse(line);
  console.log(JSON.stringify(given.spans ? spans(given.spans) : golden(given.golden)));
}
