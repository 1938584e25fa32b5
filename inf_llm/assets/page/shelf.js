// The documents of the conversation that is open, in a row above it.

import { when } from "./changes.js";
import * as documents from "./documents.js";
import { $, announce, button, element, icon, number } from "./dom.js";
import * as reader from "./reader.js";

let shown = null, chooseAgain = () => {};

/** Show the documents of a conversation; `choose(row)` lets a person choose one's file again. */
export function showShelf(conversation, choose) {
  shown = conversation;
  chooseAgain = choose;
  draw();
}

when("documents", (conversation) => { if (conversation === shown) draw(); });

/** Rows that are as they were keep their nodes, so that a press on one of them is not lost. */
function draw() {
  const list = $("documents"), before = new Map([...list.children].map((node) => [node.row, node]));
  list.hidden = !shown.documents.length;
  for (const [row, node] of before) if (!shown.documents.includes(row)) node.remove();
  shown.documents.forEach((row, index) => {
    let node = before.get(row);
    if (node?.className !== row.status) {
      const made = chip(row);
      if (node) node.replaceWith(made);
      else list.insertBefore(made, list.children[index] ?? null);
      node = made;
      if (row.status === "failed" || row.status === "gone") showTrouble(node, row);
    }
    bringUpToDate(node, row);
  });
}

function showTrouble(node, row) {
  announce(`${row.name}: ${aboutOf(row)}`);
  node.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function bringUpToDate(node, row) {
  node.querySelector(".about").textContent = aboutOf(row);
  if (row.of && row.status === "reading") node.querySelector("progress").value = row.read / row.of;
}

function chip(row) {
  const readable = row.id && row.status !== "gone" && row.status !== "failed";
  const name = element("button.name", { type: "button", disabled: !readable, onclick: () => reader.open(row) },
    icon("text"), element("bdi", {}, row.name));
  const node = element(`li.${row.status}`, {}, name, element("span.about"));
  node.row = row;
  if (row.status === "reading" || row.status === "sending")
    node.append(element("progress", { max: 1, "aria-label": `Reading ${row.name}` }));
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
