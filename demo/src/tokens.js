// Token ids, and where in the text each token is. The library gives the first without the second, so its stages are run one
// by one (normalizer, splitting into words, model), and each says how many characters it has made of how many.

import { Tokenizer } from "@huggingface/tokenizers";

const FIRST = "\u0000first";
const SECOND = "\u0000second";

export class Encoder {
  /** From the parsed tokenizer.json and tokenizer_config.json. Errors: one that is not supported here. */
  constructor(content, config) {
    const problem = unsupported(content);
    if (problem) throw new Error(problem);
    this.library = new Tokenizer(content, config);
    this.isByteLevel = isByteLevel(content);
    this.trims = this.isByteLevel && (content.post_processor?.trim_offsets ?? true);
    this.prefix = content.model.continuing_subword_prefix ?? "";
    this.unknown = content.model.unk_token;
    this.added = new Map((content.added_tokens ?? []).map((token) => [token.content, token]));
    this.addedPattern = patternOf([...this.added.values()]);
    this.normalized = new Map();
    this.template = this.readTemplate();
  }

  /** What stands before, between and behind the ids of two texts, and the type of each part. */
  readTemplate() {
    const { tokens, token_type_ids: types = [] } = this.library.post_processor([FIRST], [SECOND], true);
    const [first, second] = [tokens.indexOf(FIRST), tokens.indexOf(SECOND)];
    const ids = tokens.map((token) => this.idOf(token));
    return {
      before: ids.slice(0, first),
      between: ids.slice(first + 1, second),
      behind: ids.slice(second + 1),
      types,
      numSpecial: tokens.length - 2,
    };
  }

  idOf(token) {
    return this.added.get(token)?.id ?? this.library.token_to_id(token) ?? this.library.token_to_id(this.unknown);
  }

  /** Of a question and a stretch of a text: {ids, types, start}, `start` being the place of the text's first token. */
  pair(question, text) {
    const { before, between, behind, types } = this.template;
    const parts = [before, question, between, text, behind];
    // One type for each special token and for each of the two texts, as the library's post-processor gave them.
    const typesOfParts = [
      types.slice(0, before.length),
      question.map(() => types[before.length]),
      types.slice(before.length + 1, before.length + 1 + between.length),
      text.map(() => types[before.length + 1 + between.length]),
      types.slice(before.length + between.length + 2),
    ];
    const start = before.length + question.length + between.length;
    return { ids: parts.flat(), types: typesOfParts.flat(), start };
  }

  /** {ids, offsets}: of each token its id, the first character in `text` (in units of UTF-16) and the one behind the last. */
  encode(text) {
    const ids = [];
    const offsets = [];
    for (const [section, begin, isAdded] of this.sections(text)) {
      if (isAdded) {
        ids.push(this.idOf(section.trim()));
        offsets.push([begin, begin + section.length]);
        continue;
      }
      for (const [token, from, to] of this.tokensOf(section)) {
        ids.push(this.idOf(token));
        offsets.push([begin + from, begin + to]);
      }
    }
    return { ids, offsets };
  }

  /** The text cut at special tokens that are written in it. */
  *sections(text) {
    let cursor = 0;
    for (const match of this.addedPattern ? text.matchAll(this.addedPattern) : []) {
      if (match.index > cursor) yield [text.slice(cursor, match.index), cursor, false];
      yield [match[0], match.index, true];
      cursor = match.index + match[0].length;
    }
    if (cursor < text.length) yield [text.slice(cursor), cursor, false];
  }

  *tokensOf(section) {
    const { normal, begins, behinds } = this.normalize(section);
    const words = this.library.pre_tokenizer(normal, { section_index: 0 });
    const places = this.isByteLevel ? bytePlaces(normal, words) : wordPlaces(normal, words);
    for (const [number, word] of words.entries()) {
      let cursor = places[number].at;
      const spans = places[number].bytes ?? null;
      for (const [position, token] of this.library.model([word]).entries()) {
        const length = this.lengthOf(token, position, word);
        const [from, to] = spans ? this.ofBytes(spans, token, cursor, length) : [cursor, cursor + length];
        cursor += length;
        yield [token, begins[from] ?? behinds.at(-1), to > from ? behinds[to - 1] : (begins[from] ?? behinds.at(-1))];
      }
    }
  }

  lengthOf(token, position, word) {
    if (token === this.unknown) return word.length; // a word has no more than one
    return position && this.prefix && token.startsWith(this.prefix) ? token.length - this.prefix.length : token.length;
  }

  /** From places among bytes to places among characters; without the spaces at both ends where the tokenizer trims them. */
  ofBytes({ begins, behinds }, token, at, length) {
    let [from, to] = [begins[at], behinds[at + length - 1]];
    if (this.trims) {
      const leading = token.match(/^Ġ*/)[0].length;
      const trailing = token.match(/Ġ*$/)[0].length;
      from = Math.min(from + leading, to);
      if (to >= trailing) to = Math.max(to - trailing, from);
    }
    return [from, to];
  }

  /** Character by character, so that each unit of the result knows where it is from. */
  normalize(text) {
    let normal = "";
    const begins = [];
    const behinds = [];
    let at = 0;
    for (const character of text) {
      const made = this.normalizedCharacter(character);
      for (let unit = 0; unit < made.length; unit++) {
        begins.push(at);
        behinds.push(at + character.length);
      }
      normal += made;
      at += character.length;
    }
    return { normal, begins, behinds };
  }

  normalizedCharacter(character) {
    if (!this.library.normalizer) return character;
    if (!this.normalized.has(character)) this.normalized.set(character, this.library.normalizer(character));
    return this.normalized.get(character);
  }
}

/** Why a tokenizer.json is not read here, or nothing. */
export function unsupported(content) {
  const model = content?.model?.type;
  const isBert = model === "WordPiece" && (content.normalizer?.type ?? "BertNormalizer") === "BertNormalizer";
  const isRoberta = model === "BPE" && isByteLevel(content) && !content.normalizer;
  if (isBert || isRoberta) return "";
  return `tokenizer.json: the page reads BERT's WordPiece and RoBERTa's byte-level BPE, not ${model ?? "this"}`;
}

function isByteLevel(content) {
  return content.pre_tokenizer?.type === "ByteLevel";
}

function patternOf(tokens) {
  if (!tokens.length) return null;
  const escaped = tokens
    .toSorted((a, b) => b.content.length - a.content.length)
    .map(({ content, lstrip, rstrip }) => {
      const literal = content.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      return `${lstrip ? "\\s*" : ""}${literal}${rstrip ? "\\s*" : ""}`;
    });
  return new RegExp(escaped.join("|"), "gu");
}

/** Words are stretches of the normalised text, in order. */
function wordPlaces(normal, words) {
  let cursor = 0;
  return words.map((word) => {
    const at = normal.indexOf(word, cursor);
    cursor = at + word.length;
    return { at };
  });
}

/** Words are the text's bytes, one character each; of each byte the character it belongs to. */
function bytePlaces(normal, words) {
  const begins = [];
  const behinds = [];
  let at = 0;
  for (const character of normal) {
    const numBytes = new TextEncoder().encode(character).length;
    for (let byte = 0; byte < numBytes; byte++) {
      begins.push(at);
      behinds.push(at + character.length);
    }
    at += character.length;
  }
  const total = words.reduce((sum, word) => sum + word.length, 0);
  if (total > begins.length) {
    // A space was put before the text; it is nowhere in it.
    begins.unshift(0);
    behinds.unshift(0);
  }
  let cursor = 0;
  return words.map((word) => {
    const place = { at: cursor, bytes: { begins, behinds } };
    cursor += word.length;
    return place;
  });
}
