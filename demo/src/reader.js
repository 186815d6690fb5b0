// A model that answers questions about texts: its windows, one after the other, and the best answers of all of them.

import { bestSpan, largestDifference } from "./golden.js";
import { MAX_QUESTION, answersOf, windowsOf } from "./spans.js";

/** What is wrong with a question or a text, in words for who wrote it. */
export class InputProblem extends Error {}

export class Reader {
  /** `run`: {input_ids, attention_mask, token_type_ids} as lists of integers -> {start_logits, end_logits}. */
  constructor(run, encoder, maxLength) {
    this.run = run;
    this.encoder = encoder;
    this.maxLength = maxLength;
  }

  /**
   * {answers, numWindows}, or nothing when `onWindow(done, total)`, which is awaited before each window, says stop.
   * Errors: InputProblem.
   */
  async answer(question, text, onWindow) {
    const asked = this.questionIds(question);
    const { ids, offsets } = this.encoder.encode(text);
    if (!ids.length) throw new InputProblem("There is no word in the text.");
    const room = this.maxLength - asked.length - this.encoder.template.numSpecial;
    if (room < 1) {
      throw new InputProblem(`The question has ${asked.length} tokens and leaves no room for the text: make it shorter.`);
    }
    const windows = windowsOf(offsets, room);
    const logits = [];
    for (const [number, window] of windows.entries()) {
      if ((await onWindow(number, windows.length)) === "stop") return undefined;
      const inputs = this.encoder.pair(asked, ids.slice(window.first, window.first + window.offsets.length));
      logits.push(await this.logitsOf(inputs, window.offsets.length));
    }
    return { answers: answersOf(text, windows, logits), numWindows: windows.length };
  }

  /** At most MAX_QUESTION tokens, cut in the text, as training cuts them. */
  questionIds(question) {
    const { ids, offsets } = this.encoder.encode(question.trim());
    if (!ids.length) throw new InputProblem("There is no word in the question.");
    if (ids.length <= MAX_QUESTION) return ids;
    return this.encoder.encode(question.trim().slice(0, offsets[MAX_QUESTION - 1][1])).ids;
  }

  async logitsOf({ ids, types, start }, length) {
    const { start_logits, end_logits } = await this.run(feeds(ids, types));
    return { start: start_logits.slice(start, start + length), end: end_logits.slice(start, start + length) };
  }

  /** Runs the next golden input of a Check, and tells it. */
  async checkNext(check, golden) {
    const input = golden.inputs[check.order[check.done]];
    const own = this.asRecorded(...input.texts, golden.max_length);
    const said = await this.run(feeds(input.input_ids, input.token_type_ids ?? own.types));
    const difference = Math.max(
      largestDifference(said.start_logits, input.outputs.start_logits),
      largestDifference(said.end_logits, input.outputs.end_logits),
    );
    const span = bestSpan(said.start_logits, said.end_logits, ...input.context);
    check.add(difference, String(span) === String(input.span), String(own.ids) === String(input.input_ids));
  }

  /** A question and a text cut at the longest input, as golden inputs are made. */
  asRecorded(question, text, maxLength) {
    const asked = this.encoder.encode(question).ids;
    const room = Math.max(0, maxLength - asked.length - this.encoder.template.numSpecial);
    return this.encoder.pair(asked, this.encoder.encode(text).ids.slice(0, room));
  }
}

function feeds(ids, types) {
  return { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: types };
}
