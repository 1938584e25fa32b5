// The field for questions, and the ways to add documents: a button, a drop, a text that is pasted.

import * as answers from "./answers.js";
import { when } from "./changes.js";
import * as documents from "./documents.js";
import { $, announce, icon } from "./dom.js";

const LONG_PASTE = 4000; // characters
let shown = null, instead = null;

const draftOf = (conversation) => "inf-llm.draft." + conversation.id;

/** Write in a conversation. */
export function showComposer(conversation) {
  shown = conversation;
  $("question").value = draft();
  showState();
  grow();
}

function draft(text) {
  try {
    if (text === undefined) return sessionStorage.getItem(draftOf(shown)) ?? "";
    sessionStorage.setItem(draftOf(shown), text);
  } catch { /* the browser keeps nothing */ }
  return "";
}

function showState() {
  const running = answers.isRunning(shown);
  $("send").hidden = running;
  $("stop").hidden = !running;
}

function grow() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = Math.min(field.scrollHeight + 2, innerHeight / 3) + "px";
}

function send(event) {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || answers.isRunning(shown)) return;
  $("question").value = "";
  draft("");
  grow();
  answers.ask(shown, question);
  focusQuestion();
}

/** Not on a touch screen, whose keyboard would cover the answer. */
function focusQuestion() {
  if (matchMedia("(pointer: coarse)").matches) $("question").blur();
  else $("question").focus();
}

/** Let a person choose files; in the place of a row, if one is given. */
export function choose(row = null) {
  instead = row;
  $("files").click();
}

function addFiles(files) {
  for (const file of files) {
    documents.add(shown, file, file.name, instead);
    instead = null;
  }
}

function paste(event) {
  event.preventDefault();
  const text = $("pasted").value;
  if (!text.trim()) return $("pasted").focus();
  documents.add(shown, text, $("pasted-name").value.trim() || firstWords(text));
  $("pasting").close();
  $("pasted").value = $("pasted-name").value = "";
}

const firstWords = (text) => text.trim().replace(/\s+/g, " ").slice(0, 60);

/** A long text that is pasted where questions are written becomes a document. */
function pasteInQuestion(event) {
  const text = event.clipboardData.getData("text/plain");
  if (text.length < LONG_PASTE) return;
  event.preventDefault();
  documents.add(shown, text, firstWords(text));
  announce("The text was added as a document.");
}

function dropping(event) {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  const left = event.type === "dragleave" && !event.relatedTarget; // and not only one of the page's parts
  $("drop").hidden = event.type === "drop" || left;
  if (event.type === "drop") addFiles(event.dataTransfer.files);
}

export function setUpComposer() {
  $("attach").append(icon("add"));
  $("newest").append(icon("down"));
  $("composer").addEventListener("submit", send);
  $("stop").addEventListener("click", () => { answers.stop(shown); focusQuestion(); });
  $("question").addEventListener("input", () => { draft($("question").value); grow(); });
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  $("question").addEventListener("paste", pasteInQuestion);
  for (const id of ["attach", "choose"]) $(id).addEventListener("click", () => choose());
  $("files").addEventListener("change", () => { addFiles($("files").files); $("files").value = ""; });
  $("paste-open").addEventListener("click", () => $("pasting").showModal());
  $("paste-cancel").addEventListener("click", () => $("pasting").close());
  $("pasting").addEventListener("submit", paste);
  for (const kind of ["dragover", "dragleave", "drop"]) addEventListener(kind, dropping);
  when("turns", (conversation) => { if (conversation === shown) showState(); });
}
