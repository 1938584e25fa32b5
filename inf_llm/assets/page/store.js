// Conversations, kept in this browser. Two tables: heads for the list, bodies with all of it.

const MOST = 200; // conversations
const MOST_CHARACTERS = 20_000_000; // of all of them; the oldest leave first
const TABLES = ["heads", "bodies"];

const unsaved = { heads: new Map(), bodies: new Map() };
let opening = null;

function database() {
  opening ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("inf-llm", 1);
      request.onupgradeneeded = () => TABLES.forEach((name) =>
        request.result.createObjectStore(name, { keyPath: "id" }));
      request.onsuccess = () => resolve(request.result);
      request.onerror = request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opening;
}

/** Whether conversations outlive this tab. */
export const lasts = async () => Boolean(await database());

function finished(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function table(name, mode = "readonly") {
  const opened = await database();
  return opened && opened.transaction(name, mode).objectStore(name);
}

/** Id, title and time of each conversation, the newest first. */
export async function heads() {
  const stored = await table("heads");
  const found = stored ? await finished(stored.getAll()) : [...unsaved.heads.values()];
  return found.sort((a, b) => b.updated - a.updated);
}

export async function load(id) {
  const stored = await table("bodies");
  return stored ? finished(stored.get(id)) : structuredClone(unsaved.bodies.get(id));
}

export async function save(conversation) {
  const { id, title, updated } = conversation;
  const documents = conversation.documents.map((each) => each.id);
  const head = { id, title, updated, documents, size: JSON.stringify(conversation).length };
  await put("heads", head);
  await put("bodies", conversation);
  await makeRoom(id);
}

async function put(name, row) {
  const stored = await table(name, "readwrite");
  if (stored) await finished(stored.put(row));
  else unsaved[name].set(row.id, structuredClone(row));
}

export async function remove(id) {
  for (const name of TABLES) {
    const stored = await table(name, "readwrite");
    if (stored) await finished(stored.delete(id));
    else unsaved[name].delete(id);
  }
}

async function makeRoom(keep) {
  let size = 0;
  for (const [count, head] of (await heads()).entries()) {
    size += head.size;
    if (head.id !== keep && (count >= MOST || size > MOST_CHARACTERS)) await remove(head.id);
  }
}
