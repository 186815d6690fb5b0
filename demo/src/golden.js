// Whether a backend computes what was exported: the rule of exporting/golden.py, applied to one input after the other.

import { MAX_ANSWER, highest } from "./spans.js";

/** Answers that may differ beyond those that differed when the variant was exported. */
const MORE_OTHER_ANSWERS = 1;
/** A verdict is foreseen to be "right" after so many inputs: the answers to questions need not wait for the rest. */
export const ENOUGH = 5;

export class Check {
  /** Of a golden.json's content and the name of the model's file in it; an exact one where nothing is recorded of it. */
  constructor(golden, file) {
    this.total = golden.inputs.length;
    const recorded = golden.variants[file] ?? { max_difference: 0, same_answers: this.total };
    this.bound = Math.max(2 * recorded.max_difference, golden.fp32_tolerance);
    this.mayDiffer = this.total - recorded.same_answers + MORE_OTHER_ANSWERS;
    // The shortest first: a page should know early.
    this.order = [...golden.inputs.keys()].sort(
      (a, b) => golden.inputs[a].input_ids.length - golden.inputs[b].input_ids.length,
    );
    this.done = 0;
    this.maxDifference = 0;
    this.otherAnswers = 0;
    this.otherTokens = 0;
  }

  /** What a backend said of the next input of `order`; `same...` against the golden answer and the golden tokens. */
  add(difference, sameAnswer, sameTokens) {
    this.done++;
    this.maxDifference = Math.max(this.maxDifference, difference);
    this.otherAnswers += sameAnswer ? 0 : 1;
    this.otherTokens += sameTokens ? 0 : 1;
  }

  get isOver() {
    return this.done === this.total || Boolean(this.problem);
  }

  /** Why it is not right, or nothing. */
  get problem() {
    if (this.otherTokens) return `${this.otherTokens} of ${this.done} recorded texts are cut into other tokens`;
    if (!(this.maxDifference <= this.bound)) {
      return `an output differs from the recorded one by ${rounded(this.maxDifference)}, and ${rounded(this.bound)} is allowed`;
    }
    if (this.otherAnswers > this.mayDiffer) {
      return `${this.otherAnswers} of ${this.done} recorded questions get another answer, and ${this.mayDiffer} may`;
    }
    return "";
  }

  get verdict() {
    const { done, total, maxDifference, bound, otherAnswers, problem } = this;
    return { done, total, maxDifference, bound, sameAnswers: done - otherAnswers, problem };
  }
}

/** First and last token of the best answer within tokens [first, behind), or nothing. */
export function bestSpan(starts, ends, first, behind) {
  const isInside = (place) => place >= first && place < behind;
  const likeliestEnds = highest(ends, isInside);
  let best = null;
  for (const start of highest(starts, isInside)) {
    for (const end of likeliestEnds) {
      const isValid = start <= end && end < start + MAX_ANSWER;
      if (isValid && (!best || starts[start] + ends[end] > starts[best[0]] + ends[best[1]])) best = [start, end];
    }
  }
  return best;
}

/** The largest difference of two lists of numbers; infinite where one is no number, or their lengths differ. */
export function largestDifference(numbers, golden) {
  if (numbers.length !== golden.length) return Infinity;
  let largest = 0;
  for (let place = 0; place < golden.length; place++) {
    const difference = Math.abs(numbers[place] - golden[place]);
    if (!Number.isFinite(difference)) return Infinity;
    largest = Math.max(largest, difference);
  }
  return largest;
}

export function rounded(number) {
  return Number.isFinite(number) ? String(Number(number.toPrecision(3))) : "more than any number";
}
