// Documents of a conversation: sent to the server, read there, watched, removed.
//
// A row has a `status`: sending, reading (`read` of `of` tokens), ready, failed (`error` says why), or
// gone, where the server does not have it any more.

import { call, events, json, Refusal } from "./api.js";
import { changed, when } from "./changes.js";
import { isElsewhere, keep, keepNow, newId } from "./conversations.js";

const RETRY_AFTER = 3000; // milliseconds
const INTERRUPTED = "The upload was interrupted when the page was left: choose the file again.";
const files = new Map(); // by key of a row, to send again
const watching = new Map(); // an AbortController by key of a row
let queue = Promise.resolve();

function update(conversation, row, news) {
  Object.assign(row, news);
  changed("documents", conversation);
  keep(conversation);
}

/** Send a File, or a text that was pasted; in the place of a row that is gone, if one is given. */
export function add(conversation, content, name, instead = null) {
  const row = { key: newId(), id: null, name, status: "sending", was: instead };
  const at = conversation.documents.findIndex((each) => each.key === instead?.key);
  if (at < 0) conversation.documents.push(row);
  else conversation.documents[at] = row;
  files.set(row.key, content);
  send(conversation, row);
}

/** Send again what was refused. */
export function sendAgain(conversation, row) {
  update(conversation, row, { status: "sending", error: null });
  send(conversation, row);
}

export const canSendAgain = (row) => row.status === "failed" && files.has(row.key);

function send(conversation, row) {
  changed("documents", conversation);
  queue = queue.then(() => upload(conversation, row)); // one body at a time
}

async function upload(conversation, row) {
  if (!conversation.documents.includes(row)) return;
  const content = files.get(row.key), stopping = new AbortController();
  watching.set(row.key, stopping);
  try {
    const what = typeof content === "string" ? { text: content } : { file: await inBase64(content) };
    const body = { ...what, name: row.name, background: true };
    const given = await json("v1/documents", { body, signal: stopping.signal });
    update(conversation, row, known(given));
    await keepNow(conversation); // its id, from which on the page may be left
    watch(conversation, row);
  } catch (error) {
    fail(conversation, row, error);
  }
}

function inBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    if (file.size) reader.readAsDataURL(file);
    else reject(new Error("The file is empty."));
  });
}

function known({ id, status, origin, characters, tokens, cut_tokens, read, of }) {
  return { id, status, origin, characters, tokens, cut_tokens, read: read ?? 0, of: of ?? 0 };
}

function fail(conversation, row, error) {
  if (error.name === "AbortError") return;
  update(conversation, row, { status: "failed", error: error.message, refused: error.status });
}

/** Whether another try may do: the connection was lost, or the server is busy. */
const mayPass = (error) => [0, 429, 503].includes(error.status);

/** Follow the reading of a document until it is there, whatever passes. */
async function watch(conversation, row) {
  const stopping = new AbortController();
  watching.get(row.key)?.abort();
  watching.set(row.key, stopping);
  for (;;) {
    try {
      const reply = await call(`v1/documents/${row.id}/events`, { signal: stopping.signal });
      for await (const given of events(reply)) take(conversation, row, given);
      return;
    } catch (error) {
      if (error.status === 404) return update(conversation, row, { status: "gone" });
      if (!mayPass(error) || stopping.signal.aborted) return fail(conversation, row, error);
      update(conversation, row, { error: `${error.message} Trying again…` });
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
    if (stopping.signal.aborted) return;
  }
}

function take(conversation, row, given) {
  if (given.object === "document.progress") {
    row.began ??= { at: Date.now(), read: given.read };
    update(conversation, row, { read: given.read, of: given.of, error: null });
  } else if (given.object === "document") {
    delete row.began;
    update(conversation, row, { ...known(given), error: null });
    files.delete(row.key);
    if (row.was) replaced(conversation, row);
  }
}

/** Passages of earlier answers lead into the new upload, if it is the same text. */
function replaced(conversation, row) {
  if (row.was.characters === row.characters)
    for (const passage of conversation.turns.flatMap((turn) => turn.passages ?? []))
      if (passage.document === row.was.id) passage.document = row.id;
  row.was = null;
  changed("turns", conversation);
}

/** Seconds until a document is read, or null where that is not known yet. */
export function secondsLeft({ began, read, of }) {
  const seconds = began ? (Date.now() - began.at) / 1000 : 0;
  return seconds < 2 || read <= began.read ? null : (of - read) * seconds / (read - began.read);
}

/** After the page was loaded, or a key was given: what has become of the documents. */
export function resume(conversation) {
  for (const row of conversation.documents) {
    if (row.refused === 401 && canSendAgain(row)) sendAgain(conversation, row);
    if (watching.has(row.key)) continue;
    if (!row.id && row.status === "sending") fail(conversation, row, new Error(INTERRUPTED));
    if (!row.id || row.status === "gone") continue;
    delete row.began;
    if (row.status === "reading") watch(conversation, row);
    else check(conversation, row);
  }
}

/** See whether the server still has a document. */
async function check(conversation, row) {
  try {
    const given = await json(`v1/documents/${row.id}`);
    update(conversation, row, known(given));
    if (row.status === "reading") watch(conversation, row);
  } catch (error) {
    if (error.status === 404) update(conversation, row, { status: "gone" });
  }
}

export const checkAll = (conversation) =>
  Promise.all(conversation.documents.filter((row) => row.id).map((row) => check(conversation, row)));

/** Remove a document; the server forgets it too, unless another conversation has it. */
export async function remove(conversation, row) {
  conversation.documents = conversation.documents.filter((each) => each !== row);
  await release(conversation, row);
  changed("documents", conversation);
  changed("turns", conversation); // its passages lead nowhere now
  keep(conversation);
}

export async function release(conversation, row) {
  watching.get(row.key)?.abort();
  files.delete(row.key);
  if (row.id && row.status !== "gone" && !(await isElsewhere(row.id, conversation)))
    await call(`v1/documents/${row.id}`, { method: "DELETE" }).catch(() => {});
}

const isUnderWay = (row) => row.status === "sending" || row.status === "reading";

/** Ids of the documents to answer from, once all are read. */
export async function ready(conversation, signal) {
  const awaited = conversation.documents.filter(isUnderWay);
  while (conversation.documents.some(isUnderWay)) await nextChange(signal);
  const failed = awaited.find((row) => row.status === "failed" && conversation.documents.includes(row));
  if (failed) throw new Refusal(0, `“${failed.name}” could not be read. ${failed.error}`);
  const gone = conversation.documents.find((row) => row.status === "gone");
  if (gone) throw new Refusal(404, `“${gone.name}” is no longer on the server: upload it again, or remove it.`);
  return conversation.documents.filter((row) => row.status === "ready").map((row) => row.id);
}

function nextChange(signal) {
  return new Promise((resolve, reject) => {
    const end = when("documents", () => { end(); resolve(); });
    const stop = () => { end(); reject(new DOMException("stopped", "AbortError")); };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}
