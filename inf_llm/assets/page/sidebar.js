// The list of conversations.

import { when } from "./changes.js";
import { cover } from "./cover.js";
import { $, button, element, icon } from "./dom.js";
import * as store from "./store.js";

let shown = null, actions = {}, drawn = "";

/** @param does functions `open(id)`, `remove(id)`, `begin()` */
export function setUpSidebar(does) {
  actions = does;
  $("new").prepend(icon("add"));
  $("new").addEventListener("click", () => { toggle(false); actions.begin(); });
  $("side-close").append(icon("close"));
  $("side-open").addEventListener("click", () => toggle(true));
  $("side-close").addEventListener("click", () => toggle(false));
  $("shade").addEventListener("click", () => toggle(false));
  when("list", draw);
  when("unkept", () => { $("not-kept").hidden = false; });
  store.lasts().then((lasts) => { if (!lasts) $("not-kept").hidden = false; });
}

/** On a narrow screen the list lies over the page. */
export function toggle(open) {
  cover("listing", open);
  $("shade").hidden = !open;
  $("side-open").setAttribute("aria-expanded", open);
  if ($("side-open").offsetParent) (open ? $("side-close") : $("side-open")).focus();
}

export function showOpen(conversation) {
  shown = conversation;
  draw();
}

/** Draw the list where it is another one, so that a press on it is not lost while an answer is saved. */
async function draw() {
  const heads = await store.heads();
  const now = JSON.stringify([shown?.id, heads.map(({ id, title, updated }) => [id, title, day(updated)])]);
  if (now === drawn) return;
  drawn = now;
  $("list").replaceChildren(...heads.map(row));
}

function row({ id, title, updated }) {
  const open = element("button.name", { type: "button", onclick: () => { toggle(false); actions.open(id); } },
    element("bdi", {}, title), element("span.quiet", {}, day(updated)));
  if (id === shown?.id) open.setAttribute("aria-current", "page");
  return element("li", {}, open, button("remove", `Delete “${title}”`, (event) => sure(event, id)));
}

/** Deleting takes a second press. */
function sure(event, id) {
  const pressed = event.currentTarget;
  if (pressed.classList.contains("sure")) return actions.remove(id);
  pressed.classList.add("sure");
  pressed.replaceChildren("Delete?");
  pressed.addEventListener("blur", () => {
    pressed.classList.remove("sure");
    pressed.replaceChildren(icon("remove"));
  }, { once: true });
}

function day(time) {
  const date = new Date(time), today = new Date().toDateString() === date.toDateString();
  return today ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}
