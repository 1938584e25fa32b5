// The documents of the conversation that is open, in a row above it.

import { when } from "./changes.js";
import * as documents from "./documents.js";
import { $, button, element, icon, number } from "./dom.js";
import * as reader from "./reader.js";

let shown = null, chooseAgain = () => {};

/** Show the documents of a conversation; `choose(row)` lets a person choose one's file again. */
export function showShelf(conversation, choose) {
  shown = conversation;
  chooseAgain = choose;
  draw();
}

when("documents", (conversation) => { if (conversation === shown) draw(); });

function draw() {
  const list = $("documents"), focused = document.activeElement?.closest("#documents li")?.dataset.key;
  list.hidden = !shown.documents.length;
  list.replaceChildren(...shown.documents.map(chip));
  if (focused) list.querySelector(`[data-key="${focused}"] button`)?.focus({ preventScroll: true });
}

function chip(row) {
  const readable = row.id && row.status !== "gone" && row.status !== "failed";
  const name = element("button.name", {
    type: "button",
    disabled: !readable,
    onclick: () => reader.open(row, [], null),
  }, icon("text"), element("bdi", {}, row.name));
  const node = element(`li.${row.status}`, { "data-key": row.key }, name, element("span.about", {}, aboutOf(row)));
  if (row.status === "reading" || row.status === "sending") node.append(progress(row));
  if (documents.canSendAgain(row))
    node.append(button("again", "Send it again", () => documents.sendAgain(shown, row), { text: "Send again", kind: "small.worded" }));
  else if (row.status === "gone" || row.status === "failed")
    node.append(button("add", "Upload it again", () => chooseAgain(row), { text: "Upload again", kind: "small.worded" }));
  node.append(button("close", `Remove ${row.name}`, () => documents.remove(shown, row)));
  return node;
}

function aboutOf(row) {
  if (row.status === "sending") return "sending…";
  if (row.status === "failed") return row.error;
  if (row.status === "gone") return "no longer on the server";
  if (row.status === "reading") return row.error || readingOf(row);
  return row.origin.replace(/^an? /, "") || `${number(row.characters)} characters`;
}

function readingOf(row) {
  if (!row.of) return "waiting to be read";
  const seconds = documents.secondsLeft(row);
  const left = seconds === null ? "" : seconds < 90 ? `, ${Math.ceil(seconds)} s left` : `, ${Math.round(seconds / 60)} min left`;
  return `read ${Math.floor(100 * row.read / row.of)} %${left}`;
}

function progress(row) {
  const bar = element("progress", { max: 1, "aria-label": `Reading ${row.name}` });
  if (row.of) bar.value = row.read / row.of;
  return bar;
}
