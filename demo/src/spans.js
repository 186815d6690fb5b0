// The best answers out of what a model says of the windows of a text: the rule of finetuning/spans.py, and nothing else.
//
// A window is {first, offsets, mayStart}: its first token's number in the text; for each of its tokens the first character
// and the one behind the last; whether no other window has more context around the token. Logits are of these tokens alone.

/** Tokens of the text from the begin of one window to that of the next. */
export const STRIDE = 128;
/** Tokens of a question. */
export const MAX_QUESTION = 64;
/** Tokens of an answer. */
export const MAX_ANSWER = 30;
/** Starts, and ends, of a window that are tried with each other; answers that are kept. */
export const N_BEST = 20;

/** Windows of at most `room` tokens over a text whose tokens are at `offsets`. */
export function windowsOf(offsets, room) {
  const step = room > STRIDE ? STRIDE : room;
  const windows = [];
  for (let first = 0; first < offsets.length; first += step) {
    const behind = Math.min(first + room, offsets.length);
    windows.push({ first, offsets: offsets.slice(first, behind) });
    if (behind === offsets.length) break;
  }
  markContext(windows);
  return windows;
}

/** Sets mayStart: which tokens have nowhere more context on their poorer side; the first window wins ties. */
export function markContext(windows) {
  const best = new Map(); // first character of a token -> [score, window]
  windows.forEach(({ offsets }, number) => {
    const last = offsets.length - 1;
    offsets.forEach(([begin], place) => {
      // The share of the length decides between windows that give the same.
      const score = Math.min(place, last - place) + 0.01 * offsets.length;
      if (!best.has(begin) || score > best.get(begin)[0]) best.set(begin, [score, number]);
    });
  });
  windows.forEach((window, number) => {
    window.mayStart = window.offsets.map(([begin]) => best.get(begin)[1] === number);
  });
}

/**
 * The best answers, best first: {text, begin, behind, score, probability}, none of the same text.
 * `logits`: {start, end} of each window. No valid span gives the empty answer.
 */
export function answersOf(text, windows, logits) {
  const found = new Map();
  windows.forEach((window, number) => {
    const { start, end } = logits[number];
    for (const [first, last] of bestSpans(window, start, end)) {
      const score = Math.fround(start[first] + end[last]);
      const [begin, behind] = [window.offsets[first][0], window.offsets[last][1]];
      const answer = text.slice(begin, behind);
      if (!found.has(answer)) found.set(answer, { text: answer, begin, behind, score });
      else if (score > found.get(answer).score) Object.assign(found.get(answer), { begin, behind, score });
    }
  });
  const best = [...found.values()].sort((a, b) => b.score - a.score).slice(0, N_BEST);
  if (!best.length) best.push({ text: "", begin: 0, behind: 0, score: 0 });
  const weights = best.map(({ score }) => Math.exp(score - best[0].score));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return best.map((answer, place) => ({ ...answer, probability: weights[place] / total }));
}

function bestSpans(window, start, end) {
  const starts = highest(start, (place) => window.mayStart[place]);
  const ends = highest(end, () => true);
  return starts.flatMap((first) =>
    ends.filter((last) => last >= first && last < first + MAX_ANSWER).map((last) => [first, last]),
  );
}

/** Places of the highest ones that are possible at all. */
export function highest(logits, isPossible) {
  return [...logits.keys()]
    .filter((place) => isPossible(place) && Number.isFinite(logits[place]))
    .sort((a, b) => logits[b] - logits[a])
    .slice(0, N_BEST);
}
