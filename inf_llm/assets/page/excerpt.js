// A piece of a document's text as nodes, with its passages marked and its pages named.
//
// The server counts characters as code points; so does everything here.

import { element } from "./dom.js";

/** @param piece what the server gives: start, end, text, places
 *  @param marks passages with start, end, `index`, `weight` from 0 to 1, and whether it is that of `now` */
export function excerptOf(piece, marks) {
  const letters = Array.from(piece.text);
  const pages = piece.places.filter(({ start, label }) => start >= piece.start && /^page \d+$/.test(label));
  const edges = new Set([piece.start, piece.end, ...pages.map(({ start }) => start)]);
  for (const { start, end } of marks)
    for (const edge of [start, end]) if (edge > piece.start && edge < piece.end) edges.add(edge);
  const node = element("div.piece"), cuts = [...edges].sort((a, b) => a - b);
  cuts.slice(0, -1).forEach((start, at) => {
    const page = pages.find((each) => each.start === start);
    if (page) node.append(element("span.page", {}, page.label));
    const text = letters.slice(start - piece.start, cuts[at + 1] - piece.start).join("");
    const mark = marks.find((each) => each.start <= start && each.end > start);
    node.append(mark ? marked(text, mark) : text);
  });
  return node;
}

function marked(text, { index, weight, now }) {
  const made = element(now ? "mark.now" : "mark", {}, text);
  made.dataset.index = index;
  made.style.setProperty("--weight", weight);
  return made;
}
