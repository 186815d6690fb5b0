// Whether a backend computes what was exported: the rule of exporting/golden.py, applied to one input after the other.

/** Answers that may differ beyond those that differed when the variant was exported. */
const MORE_OTHER_ANSWERS = 1;
/** A verdict is foreseen to be "right" after so many inputs: the answers to questions need not wait for the rest. */
export const ENOUGH = 5;

export class Check {
  /** Of a golden.json's content and the name of the model's file in it. Errors: the file is not in it. */
  constructor(golden, file) {
    const recorded = golden.variants?.[file];
    if (!recorded) throw new Error(`golden.json has no record of ${file}: export the model again`);
    this.bound = Math.max(2 * recorded.max_difference, golden.fp32_tolerance);
    this.total = golden.inputs.length;
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
    // Not a number counts as infinitely far.
    this.maxDifference = Math.max(this.maxDifference, Number.isFinite(difference) ? difference : Infinity);
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

/** The largest difference of two lists of numbers; infinite where their lengths differ. */
export function largestDifference(numbers, golden) {
  if (numbers.length !== golden.length) return Infinity;
  let largest = 0;
  for (let place = 0; place < golden.length; place++) {
    const difference = Math.abs(numbers[place] - golden[place]);
    if (!(difference <= largest)) largest = difference; // not a number stays
  }
  return largest;
}

export function rounded(number) {
  return Number.isFinite(number) ? String(Number(number.toPrecision(3))) : "more than any number";
}
