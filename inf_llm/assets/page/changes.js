// Who wants to know that something has changed: "documents" and "turns" of a conversation, a "turn",
// the "list" of conversations; that another tab has changed one: "elsewhere"; that something could not be
// kept: "unkept".

const waiting = new Map();

export function when(what, then) {
  if (!waiting.has(what)) waiting.set(what, new Set());
  waiting.get(what).add(then);
  return () => waiting.get(what).delete(then);
}

export function changed(what, subject) {
  for (const then of [...(waiting.get(what) ?? [])]) then(subject);
}
