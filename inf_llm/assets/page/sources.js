// Under an answer: where the passages are in each document, and what they say.

import { element, number } from "./dom.js";
import { whereOf } from "./passages.js";
import * as reader from "./reader.js";

const SHOWN_AT_ONCE = 3;

/** The passages of a turn, or nothing where none were recalled. */
export function sources(conversation, turn) {
  const passages = turn.passages ?? [];
  if (!passages.length) return [];
  const rowOf = (passage) => conversation.documents.find((row) => row.id === passage.document);
  const go = (passage) => reader.openPassage(passages, passages.indexOf(passage), rowOf);
  const several = conversation.documents.length > 1;
  const list = element("ol", {}, ...passages.map((passage, index) =>
    item(passage, index, rowOf(passage), several, go)));
  const what = passages.length === 1 ? "One passage was recalled" : `${number(passages.length)} passages were recalled`;
  const made = element("section.sources", { "aria-label": "Recalled passages" },
    element("h3.quiet", {}, what), ...strips(passages, rowOf, go, several), list);
  if (passages.length > SHOWN_AT_ONCE) shorten(made, list);
  return [made];
}

function item(passage, index, row, several, go) {
  const where = [several && row?.name, whereOf(passage, row?.characters)].filter(Boolean).join(" · ");
  return element("li", {}, element("button.passage", {
    type: "button",
    disabled: !row,
    title: row ? "Show it in the text" : "The document was removed",
    onclick: () => go(passage),
  }, element("span.rank", {}, String(index + 1)), element("span.where.quiet", {}, where),
  element("q", { dir: "auto" }, passage.quote)));
}

function shorten(made, list) {
  const more = [...list.children].slice(SHOWN_AT_ONCE);
  more.forEach((row) => { row.hidden = true; });
  const all = element("button.plain.more", { type: "button", onclick: () => {
    more.forEach((row) => { row.hidden = false; });
    more[0].firstElementChild.focus();
    all.remove();
  } }, `Show ${more.length} more`);
  made.append(all);
}

/** A line for each document, from its beginning to its end, with a mark for each passage. */
function strips(passages, rowOf, go, several) {
  const rows = [...new Set(passages.map(rowOf))].filter((row) => row?.characters);
  return rows.map((row) => {
    const here = passages.filter((passage) => passage.document === row.id);
    const best = Math.max(...here.map((passage) => passage.score));
    const marks = here.map((passage) => {
      const mark = element("i");
      mark.style.left = 100 * passage.start / row.characters + "%";
      mark.style.width = 100 * (passage.end - passage.start) / row.characters + "%";
      mark.style.opacity = 0.4 + 0.6 * passage.score / best;
      return mark;
    });
    const strip = element("div.strip", {
      role: "img",
      "aria-label": `Places of the passages in ${row.name}`,
      title: several ? row.name : "The document from its beginning to its end",
      onclick: (event) => go(nearest(here, row, event)),
    }, ...marks);
    return strip;
  });
}

function nearest(passages, row, event) {
  const box = event.currentTarget.getBoundingClientRect();
  const place = row.characters * (event.clientX - box.left) / box.width;
  const away = (passage) => Math.abs((passage.start + passage.end) / 2 - place);
  return passages.reduce((best, each) => away(each) < away(best) ? each : best);
}
