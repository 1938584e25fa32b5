// What was recalled for an answer, as passages that a person can read.

const LEAST_LETTERS = 12; // of an alphabet; fewer say nothing
const LEAST_SIGNS = 5; // of Chinese, Japanese and Korean, where each says more
const SIGN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/gu;
const BETWEEN = 2; // characters of white space between passages that belong together
const LONGEST_QUOTE = 400;

const countOf = (text, what) => (text.match(what) || []).length;

function saysSomething(text) {
  return countOf(text, SIGN) >= LEAST_SIGNS || countOf(text, /[\p{L}\p{N}]/gu) >= LEAST_LETTERS;
}

/** Passages of documents, those that touch as one, the most recalled first. */
export function passagesOf(recalled) {
  const inTexts = recalled.filter((each) => each.document && each.characters).map(plain);
  inTexts.sort((a, b) => a.document.localeCompare(b.document) || a.start - b.start);
  const merged = [];
  for (const passage of inTexts) {
    const last = merged.at(-1);
    if (last?.document === passage.document && passage.start <= last.end + BETWEEN) join(last, passage);
    else merged.push(passage);
  }
  const told = merged.filter((passage) => saysSomething(passage.quote));
  told.sort((a, b) => b.score - a.score);
  return told.map((passage) => ({ ...passage, quote: shortened(passage.quote) }));
}

function plain({ document, characters, label, score, text }) {
  const [start, end] = characters;
  return { document: document.id, start, end, labels: label ? [label] : [], score, quote: text.trim() };
}

function join(first, second) {
  const letters = Array.from(second.quote), overlap = Math.max(0, first.end - second.start);
  const rest = letters.slice(overlap).join("");
  if (second.end > first.end) first.quote += (overlap ? "" : " ") + rest;
  first.end = Math.max(first.end, second.end);
  first.score += second.score;
  first.labels = [...new Set([...first.labels, ...second.labels])];
}

function shortened(text) {
  const line = text.replace(/\s+/g, " ");
  return line.length <= LONGEST_QUOTE ? line : line.slice(0, LONGEST_QUOTE).replace(/\s+\S*$/, "") + "…";
}

/** Where a passage is: its page or heading, and how far into the text. */
export function whereOf(passage, characters) {
  const depth = characters ? `${Math.round(100 * passage.start / characters)} % into the text` : "";
  return [passage.labels.join(" – "), depth].filter(Boolean).join(" · ");
}
