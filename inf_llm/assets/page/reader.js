// The text of a document beside the conversation, with the passages of an answer. It is fetched in
// pieces: the one in view, and its neighbours when they come near.

import { json } from "./api.js";
import { cover } from "./cover.js";
import { $, icon, number } from "./dom.js";
import { excerptOf } from "./excerpt.js";

const PIECE = 20_000; // characters

let row = null; // of the document that is shown
let passages = [], rowOf = null, now = -1; // the passages of an answer, and which of them is chosen
let opener = null;
let first = 0, last = -1; // pieces that are shown
let opening = 0; // counts what was opened, so that a late piece of another is dropped

const view = $("text"), map = $("map");
const above = document.createElement("div"), below = document.createElement("div");
above.className = below.className = "edge";

/** Open a document at its beginning. */
export async function open(wanted) {
  passages = [];
  now = -1;
  $("passages").hidden = true;
  reveal(wanted);
  await showAt(0);
}

/** Open the document of a passage there; the other passages can be reached from it.
 *  @param documentOf the row of a passage's document, or undefined */
export async function openPassage(recalled, index, documentOf) {
  [passages, rowOf] = [recalled, documentOf];
  reveal(rowOf(passages[index]));
  await goTo(index);
}

function reveal(wanted) {
  if ($("reader").hidden) opener = document.activeElement;
  row = wanted;
  $("reader-title").textContent = row.name;
  $("reader-about").textContent = aboutOf(row);
  keepInPlace(opener, () => {
    $("reader").hidden = false;
    cover("reading", true);
  });
  drawMap();
  view.focus({ preventScroll: true });
}

export function close() {
  if ($("reader").hidden) return;
  opening += 1;
  keepInPlace(opener, () => {
    $("reader").hidden = true;
    cover("reading", false);
  });
  if (opener?.isConnected) opener.focus({ preventScroll: true });
}

/** Change the widths without moving what a person has pressed. */
function keepInPlace(node, change) {
  const before = node?.getBoundingClientRect().top;
  change();
  if (node?.isConnected && $("turns").contains(node))
    $("talk").scrollTop += node.getBoundingClientRect().top - before;
}

export const isOpen = () => !$("reader").hidden;

/** The passages in the document that is shown, with their numbers and weights. */
function marks() {
  const numbered = passages.map((passage, index) => ({ ...passage, index }));
  const here = numbered.filter((passage) => passage.document === row.id);
  const best = Math.max(...here.map((passage) => passage.score), 1e-9);
  return here.map((passage) => ({ ...passage, now: passage.index === now, weight: passage.score / best }));
}

function aboutOf({ origin, characters, tokens, cut_tokens }) {
  return [origin, `${number(characters)} characters`, tokens && `${number(tokens)} tokens`,
    cut_tokens && `${number(cut_tokens)} of them left out`].filter(Boolean).join(" · ");
}

async function goTo(index) {
  now = index;
  const labels = passages[now].labels.join(" – ");
  $("passages").hidden = false;
  $("passage-now").textContent = `Passage ${now + 1} of ${passages.length}` + (labels && ` · ${labels}`);
  $("passage-previous").disabled = next(-1) === undefined;
  $("passage-next").disabled = next(1) === undefined;
  await showAt(passages[now].start);
}

/** The number of the next passage in a direction whose document is there. */
function next(step) {
  for (let index = now + step; passages[index]; index += step) if (rowOf(passages[index])) return index;
}

/** Show the text from a character on, or the passage that is chosen. */
async function showAt(character) {
  const piece = Math.min(Math.floor(character / PIECE), lastPiece());
  if (piece < first || piece > last || !view.contains(above) || view.dataset.document !== row.id) {
    if (!(await start(piece))) return;
  } else remark();
  const chosen = view.querySelector(`mark[data-index="${now}"]`);
  if (chosen && character === passages[now].start) chosen.scrollIntoView({ block: "start" });
  else scrollTo(character, piece);
}

function scrollTo(character, piece) {
  const node = view.querySelector(`[data-piece="${piece}"]`);
  const part = (character - piece * PIECE) / PIECE;
  view.scrollTop = character ? node.offsetTop + part * node.offsetHeight - view.clientHeight / 3 : 0;
}

const lastPiece = () => Math.max(0, Math.ceil(row.characters / PIECE) - 1);

/** Begin anew with one piece. */
async function start(piece) {
  const turn = ++opening;
  view.replaceChildren();
  const node = await fetched(piece, turn);
  if (!node) return false;
  first = last = piece;
  view.dataset.document = row.id;
  view.replaceChildren(above, node, below);
  for (const edge of [above, below]) { nearing.unobserve(edge); nearing.observe(edge); }
  return true;
}

async function fetched(piece, turn) {
  $("reader-trouble").hidden = true;
  try {
    const end = Math.min((piece + 1) * PIECE, row.characters);
    const got = await json(`v1/documents/${row.id}/text?start=${piece * PIECE}&end=${end}`);
    if (turn !== opening) return null;
    return drawn(got, piece);
  } catch (error) {
    if (turn !== opening) return null;
    $("reader-trouble").textContent = error.status === 404
      ? "The document is no longer on the server: upload it again." : error.message;
    $("reader-trouble").hidden = false;
    return null;
  }
}

function drawn(got, piece) {
  const node = excerptOf(got, marks());
  node.dataset.piece = piece;
  node.got = got;
  return node;
}

/** Mark other passages in the pieces that are shown. */
function remark() {
  for (const node of view.querySelectorAll(".piece"))
    node.replaceWith(drawn(node.got, Number(node.dataset.piece)));
}

const nearing = new IntersectionObserver(async (entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    if (entry.target === below && last < lastPiece()) await grow(last + 1);
    if (entry.target === above && first > 0) await grow(first - 1);
  }
}, { root: view, rootMargin: "600px" });

let growing = false;
async function grow(piece) {
  if (growing) return;
  growing = true;
  const node = await fetched(piece, opening);
  growing = false;
  if (!node) return;
  const height = view.scrollHeight;
  if (piece > last) { last = piece; below.before(node); }
  else { first = piece; above.after(node); view.scrollTop += view.scrollHeight - height; }
  for (const edge of [above, below]) { nearing.unobserve(edge); nearing.observe(edge); }
}

/* ---- the map: the whole document beside the text ---- */

function drawMap() {
  map.querySelectorAll("i").forEach((mark) => mark.remove());
  for (const { start, end, weight } of marks()) {
    const mark = document.createElement("i");
    mark.style.top = 100 * start / row.characters + "%";
    mark.style.height = 100 * (end - start) / row.characters + "%";
    mark.style.opacity = 0.4 + 0.6 * weight;
    map.append(mark);
  }
}

function showInView() {
  const pieces = [...view.querySelectorAll(".piece")], shown = map.querySelector("b");
  const placeOf = (y) => {
    const node = pieces.findLast((each) => each.offsetTop <= y) ?? pieces[0];
    const { start, end } = node.got;
    return start + (end - start) * Math.min(1, Math.max(0, (y - node.offsetTop) / node.offsetHeight));
  };
  if (!pieces.length) return;
  const from = placeOf(view.scrollTop), to = placeOf(view.scrollTop + view.clientHeight);
  shown.style.top = 100 * from / row.characters + "%";
  shown.style.height = 100 * (to - from) / row.characters + "%";
}

view.addEventListener("scroll", () => requestAnimationFrame(showInView));
map.addEventListener("click", (event) => {
  const box = map.getBoundingClientRect();
  showAt(Math.floor(row.characters * (event.clientY - box.top) / box.height));
});
$("reader-close").append(icon("close"));
$("reader-close").addEventListener("click", close);
$("passage-previous").append(icon("previous"));
$("passage-next").append(icon("next"));
$("passage-previous").addEventListener("click", () => openPassage(passages, next(-1), rowOf));
$("passage-next").addEventListener("click", () => openPassage(passages, next(1), rowOf));
