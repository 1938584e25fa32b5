// What was recalled for an answer, as passages that a person can read.

const LEAST_LETTERS = 12; // of an alphabet; fewer say nothing
const LEAST_SIGNS = 5; // of Chinese, Japanese and Korean, where each says more
const SIGN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/gu;
const BETWEEN = 2; // characters of white space between passages that belong together
const LONGEST = 600; // characters past which those that touch are not joined
const LONGEST_QUOTE = 400;
const FAR = 120; // characters of a quote that are in view

const countOf = (text, what) => (text.match(what) || []).length;

function saysSomething(text) {
  return countOf(text, SIGN) >= LEAST_SIGNS || countOf(text, /[\p{L}\p{N}]/gu) >= LEAST_LETTERS;
}

/** Passages of documents: first those with words that few others share with the answer, then the
 *  most recalled. Those that touch are one, as long as that is not too long. */
export function passagesOf(recalled, answer) {
  const inTexts = recalled.filter((each) => each.document && each.characters).map(plain);
  inTexts.sort((a, b) => a.document.localeCompare(b.document) || a.start - b.start);
  const merged = [];
  for (const passage of inTexts) {
    const last = merged.at(-1);
    if (last && belongTogether(last, passage)) join(last, passage);
    else merged.push(passage);
  }
  const kept = merged.filter((passage) => saysSomething(passage.quote));
  const shared = sharedWith(answer, kept);
  kept.sort((a, b) => shared.get(b).worth - shared.get(a).worth || b.score - a.score);
  return kept.map((passage) => ({ ...passage, quote: quoted(passage.quote, shared.get(passage).rarest) }));
}

function belongTogether(first, second) {
  if (first.document !== second.document || second.start > first.end + BETWEEN) return false;
  if (second.start < first.end) return true;
  return second.end - first.start <= LONGEST && String(first.labels) === String(second.labels);
}

/** How much of an answer each passage has: each word counts less, the more passages have it. */
function sharedWith(answer, passages) {
  const words = (text) => new Set(text.toLowerCase().match(/\p{L}{4,}|\p{N}{2,}/gu));
  const wanted = words(answer), of = new Map(passages.map((each) => [each, words(each.quote)]));
  const worth = (word) => 1 / passages.filter((each) => of.get(each).has(word)).length;
  return new Map(passages.map((passage) => {
    const both = [...of.get(passage)].filter((word) => wanted.has(word)).sort((a, b) => worth(b) - worth(a));
    return [passage, { worth: both.reduce((sum, word) => sum + worth(word), 0), rarest: both[0] }];
  }));
}

function plain({ document, characters, label, score, text }) {
  const [start, end] = characters;
  return { document: document.id, start, end, labels: label ? label.split(" – ") : [], score, quote: text.trim() };
}

function join(first, second) {
  const letters = Array.from(second.quote), overlap = Math.max(0, first.end - second.start);
  const rest = letters.slice(overlap).join("");
  if (second.end > first.end) first.quote += (overlap ? "" : " ") + rest;
  first.end = Math.max(first.end, second.end);
  first.score = Math.max(first.score, second.score);
  first.labels = [...new Set([...first.labels, ...second.labels])];
}

/** One line of a passage, from the sentence with a word on, if that is far behind. */
function quoted(text, word) {
  const line = text.replace(/\s+/g, " ");
  const at = word ? line.toLowerCase().indexOf(word) : 0;
  const ends = [...line.slice(0, at).matchAll(/[.!?]["')\]]* /g)].map((end) => end.index + end[0].length);
  const sentence = at < FAR ? 0 : ends.at(-1) ?? 0;
  const rest = (sentence ? "… " : "") + line.slice(sentence);
  return rest.length <= LONGEST_QUOTE ? rest : rest.slice(0, LONGEST_QUOTE).replace(/\s+\S*$/, "") + "…";
}

/** Where a passage is: its page or heading, and how far into the text. */
export function whereOf(passage, characters) {
  const depth = characters ? `${Math.round(100 * passage.start / characters)} % into the text` : "";
  return [passage.labels.join(" – "), depth].filter(Boolean).join(" · ");
}
