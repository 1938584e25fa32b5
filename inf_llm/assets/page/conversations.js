// Conversations as plain values: documents, turns, and what each turn has come to. Those that were
// opened stay the same values while the page is, so that answers and uploads go on in them.

import { changed } from "./changes.js";
import * as store from "./store.js";

const LONGEST_TITLE = 80;
const SAVE_AFTER = 800; // milliseconds
const live = new Map(), saving = new Map(), discarded = new Set();
const tabs = otherTabs(); // with this page, in this browser

export const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 10);

export function fresh() {
  const made = { id: newId(), title: "", updated: 0, documents: [], turns: [] };
  live.set(made.id, made);
  return made;
}

/** A conversation, or undefined where there is none of that id. */
export async function open(id) {
  if (live.has(id)) return live.get(id);
  const found = await store.load(id);
  if (found && !live.has(id)) live.set(id, found);
  return live.get(id);
}

/** Save a conversation soon, once for many changes. */
export function keep(conversation) {
  if (saving.has(conversation.id)) return;
  saving.set(conversation.id, setTimeout(() => keepNow(conversation), SAVE_AFTER));
}

export async function keepNow(conversation) {
  clearTimeout(saving.get(conversation.id));
  saving.delete(conversation.id);
  if (discarded.has(conversation.id) || isEmpty(conversation)) return;
  const subject = conversation.turns[0]?.question || conversation.documents[0]?.name;
  conversation.title = subject.replace(/\s+/g, " ").slice(0, LONGEST_TITLE);
  conversation.updated = Date.now();
  await store.save(conversation).catch(() => changed("unkept")); // the disk is full, for example
  if (!isUnderWay(conversation)) tabs.postMessage(conversation.id);
  changed("list");
}

function otherTabs() {
  try {
    return new BroadcastChannel("inf-llm");
  } catch {
    return { postMessage() {} }; // the browser keeps nothing
  }
}

/** Take what another tab has kept for the conversation, unless this one is at work on it. */
tabs.onmessage = async ({ data: id }) => {
  const kept = await store.load(id), mine = live.get(id);
  if (!kept) discarded.add(id);
  if (mine && !isUnderWay(mine) && !(kept && isSame(kept, mine))) {
    clearTimeout(saving.get(id));
    saving.delete(id);
    live.delete(id);
    changed("elsewhere", id);
  }
  changed("list");
};

const isUnderWay = ({ turns, documents }) =>
  turns.some(({ state }) => state === "waiting" || state === "answering") ||
  documents.some(({ status }) => status === "sending" || status === "reading");

function isSame(one, other) {
  const said = ({ turns, documents }) => JSON.stringify([turns, documents.map((row) => row.key)]);
  return said(one) === said(other);
}

export const isEmpty = ({ turns, documents }) => !turns.length && !documents.length;

export async function discard(id) {
  discarded.add(id);
  live.delete(id);
  await store.remove(id);
  tabs.postMessage(id);
  changed("list");
}

/** Whether another conversation has a document too. */
export async function isElsewhere(document, conversation) {
  const heads = await store.heads();
  return heads.some((head) => head.id !== conversation.id && head.documents.includes(document));
}

/** What is being saved is saved before the page goes. */
addEventListener("pagehide", () => {
  for (const id of saving.keys()) keepNow(live.get(id));
});
