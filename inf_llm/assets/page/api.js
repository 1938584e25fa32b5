// Requests to the server, and what its refusals mean in words.

/** The server refused, or could not be reached: then `status` is 0. */
export class Refusal extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const LOST = "The connection to the server was lost.";
const keyWanted = new Set();

/** Call a function whenever the server asks for a key. */
export function whenKeyIsWanted(then) {
  keyWanted.add(then);
}

export async function call(path, { body, method, signal } = {}) {
  const headers = {};
  const key = preferences.get("key");
  if (key) headers.Authorization = "Bearer " + key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  method ??= body === undefined ? "GET" : "POST";
  let reply;
  try {
    reply = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal(0, LOST);
  }
  if (reply.ok) return reply;
  const said = (await reply.json().catch(() => null))?.error;
  if (reply.status === 401) keyWanted.forEach((then) => then());
  throw new Refusal(reply.status, inWords(reply.status, said?.message), said?.code);
}

export const json = async (...request) => (await call(...request)).json();

function inWords(status, message) {
  if (status === 401) return "This server asks for a key: give it in the settings, then try again.";
  if (status === 429 || status === 503) return `The server is busy (${message || status}).`;
  return message ? sentence(message) : `The server answered ${status}.`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/** The values of an event stream; comments come as { note }. */
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Refusal(0, LOST); // the last event says that it is the last
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        if (part === "data: [DONE]") return;
        if (part.startsWith(": ")) yield { note: part.slice(2) };
        else if (part.startsWith("data: ")) yield checked(JSON.parse(part.slice(6)));
      }
    }
  } catch (error) {
    throw error instanceof TypeError ? new Refusal(0, LOST) : error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function checked(value) {
  if (!value.error) return value;
  const { message, code } = value.error;
  throw new Refusal(500, inWords(500, message), code);
}
