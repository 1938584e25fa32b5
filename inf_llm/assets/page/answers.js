// Answers of the model. A turn has a question, an answer, and a `state`: waiting, answering, done, cut
// (at the longest length), stopped, or failed (`error` says why).

import { call, events, json } from "./api.js";
import { changed } from "./changes.js";
import { keep, keepNow } from "./conversations.js";
import * as documents from "./documents.js";
import { passagesOf } from "./passages.js";

const ANEW = 0.7; // temperature of another answer, where the settings give 0 and so the same one
const running = new Map(); // an AbortController by id of a conversation

export const isRunning = (conversation) => running.has(conversation.id);
export const stop = (conversation) => running.get(conversation.id)?.abort();

/** Ask a question, in a new turn. */
export function ask(conversation, question) {
  const turn = { question, answer: "" };
  conversation.turns.push(turn);
  return answer(conversation, turn, false);
}

/** Ask again, with other words if some are given; the turns after it are removed. */
export function askAgain(conversation, turn, question = turn.question) {
  conversation.turns.length = conversation.turns.indexOf(turn) + 1;
  const another = question === turn.question && turn.state === "done";
  turn.question = question;
  return answer(conversation, turn, another);
}

async function answer(conversation, turn, another) {
  const former = another ? { answer: turn.answer, passages: turn.passages, counts: turn.counts } : null;
  Object.assign(turn, { answer: "", passages: [], counts: null, another: false });
  await run(conversation, turn, another, former);
}

/** Let an answer that was cut or stopped go on. */
export const goOn = (conversation, turn) => run(conversation, turn, false);

/** @param former answer, which stays where there is no other */
async function run(conversation, turn, another, former = null) {
  const stopping = new AbortController();
  running.set(conversation.id, stopping);
  Object.assign(turn, { state: "waiting", error: null, progress: "" });
  changed("turns", conversation);
  keep(conversation);
  try {
    await stream(conversation, turn, another, stopping.signal);
  } catch (error) {
    const stopped = error.name === "AbortError";
    Object.assign(turn, { state: stopped ? "stopped" : "failed", error: stopped ? null : error.message });
    if (error.code === "document_not_found") documents.checkAll(conversation);
    if (error.code === "model_not_found") model = null; // the server has another one now
  } finally {
    running.delete(conversation.id);
    turn.progress = "";
    if (!turn.answer.trim()) Object.assign(turn, former ?? { answer: "" });
    changed("turn", turn);
    changed("turns", conversation);
    await keepNow(conversation);
  }
}

async function stream(conversation, turn, another, signal) {
  const started = performance.now();
  const body = await asked(conversation, turn, another, signal);
  const reply = await call("v1/chat/completions", { body, signal });
  let first = null;
  for await (const event of events(reply)) {
    const choice = event.choices?.[0], text = choice?.delta?.content;
    if (event.note) turn.progress = progressOf(event.note);
    if (text) {
      first ??= performance.now() - started;
      turn.answer += text;
      Object.assign(turn, { state: "answering", progress: "" });
    }
    if (choice?.finish_reason) turn.state = choice.finish_reason === "length" ? "cut" : "done";
    if (event.recalled) turn.passages = together(turn.passages, passagesOf(event.recalled, turn.answer));
    if (event.usage) turn.counts = countsOf(event.usage, first);
    changed("turn", turn);
    keep(conversation);
  }
}

async function asked(conversation, turn, another, signal) {
  const [model, ids] = await Promise.all([modelName(), documents.ready(conversation, signal)]);
  let temperature = Number(preferences.get("temperature") || 0);
  turn.another = another && temperature === 0;
  if (turn.another) temperature = ANEW;
  return {
    model,
    messages: messagesOf(conversation, turn),
    continue_final_message: turn.answer !== "",
    documents: ids,
    recall: ids.length > 0,
    temperature,
    stream: true,
    stream_options: { include_usage: true },
    ...length(),
  };
}

function length() {
  const most = Number(preferences.get("length") || 0);
  return most ? { max_tokens: most } : {};
}

let model = null;

export async function modelName() {
  model ??= (await json("health")).model;
  return model;
}

function messagesOf(conversation, turn) {
  const said = [], system = preferences.get("system");
  if (system) said.push({ role: "system", content: system });
  for (const each of conversation.turns.slice(0, conversation.turns.indexOf(turn) + 1)) {
    if (each !== turn && !each.answer) continue;
    said.push({ role: "user", content: each.question });
    if (each.answer) said.push({ role: "assistant", content: each.answer });
  }
  return said;
}

function progressOf(note) {
  const found = /^reading (\d+) (\d+)$/.exec(note);
  if (!found || Number(found[2]) < 1000) return "";
  return `Reading ${Number(found[1]).toLocaleString("en")} of ${Number(found[2]).toLocaleString("en")} tokens…`;
}

function countsOf({ prompt_tokens, prompt_tokens_details }, first) {
  const { cached_tokens, cut_tokens } = prompt_tokens_details;
  return { prompt: prompt_tokens, cached: cached_tokens, cut: cut_tokens, first };
}

/** Passages of an answer that was continued, each once. */
function together(before, more) {
  const has = (passage) => before.some((each) =>
    each.document === passage.document && each.start === passage.start && each.end === passage.end);
  return [...before, ...more.filter((passage) => !has(passage))];
}

/** After the page was loaded: answers that were under way have stopped. */
export function resume(conversation) {
  for (const turn of conversation.turns)
    if (!isRunning(conversation) && ["waiting", "answering"].includes(turn.state)) turn.state = "stopped";
}
