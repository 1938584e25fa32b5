// The page: which conversation is open, and what belongs to it.

import * as answers from "./answers.js";
import { when } from "./changes.js";
import { choose, setUpComposer, showComposer } from "./composer.js";
import * as conversations from "./conversations.js";
import * as documents from "./documents.js";
import { $ } from "./dom.js";
import * as reader from "./reader.js";
import { setUpSettings } from "./settings.js";
import { showShelf } from "./shelf.js";
import { setUpSidebar, showOpen, toggle } from "./sidebar.js";
import * as store from "./store.js";
import { showTalk } from "./talk.js";

let current = null;

function show(conversation) {
  reader.close();
  answers.resume(conversation);
  documents.resume(conversation);
  // the address has it, so that a reload and the buttons of the browser find it again
  if (location.hash.slice(1) !== conversation.id)
    history[current ? "pushState" : "replaceState"](null, "", "#" + conversation.id);
  current = conversation;
  showTalk(conversation);
  showShelf(conversation, choose);
  showComposer(conversation);
  showOpen(conversation);
  showTitle();
}

function showTitle() {
  $("title").textContent = current.title || "New conversation";
  document.title = current.title || "Talk to texts";
}

function begin() {
  show(conversations.isEmpty(current) ? current : conversations.fresh());
  $("question").focus();
}

async function open(id) {
  show(await conversations.open(id) ?? conversations.fresh());
}

async function remove(id) {
  const conversation = await conversations.open(id);
  await conversations.discard(id);
  if (conversation) {
    answers.stop(conversation);
    for (const row of conversation.documents) await documents.release(conversation, row);
  }
  if (id === current.id) show(conversations.fresh());
}

async function forgetAll() {
  for (const { id } of await store.heads()) await remove(id);
}

async function greet() {
  try {
    $("model").textContent = await answers.modelName();
  } catch (error) {
    $("model").textContent = "the server cannot be reached";
  }
}

setUpSidebar({ open, remove, begin });
setUpSettings(forgetAll, () => documents.resume(current));
when("list", showTitle);
when("elsewhere", (id) => { if (id === current.id) open(id); });
addEventListener("popstate", () => open(location.hash.slice(1)));
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (answers.isRunning(current)) answers.stop(current);
  else if (reader.isOpen()) reader.close();
  else if (document.body.classList.contains("listing")) toggle(false);
});
greet();
if (location.hash) await open(location.hash.slice(1));
else show(conversations.fresh());
setUpComposer();
