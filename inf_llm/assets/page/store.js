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

async function table(name) {
  const opened = await database();
  return opened && opened.transaction(name).objectStore(name);
}

/** Change both tables, or neither: call `change` with each. It is done when the disk has it. */
async function write(change) {
  const opened = await database();
  if (!opened) return TABLES.forEach((name) => change(unsaved[name], name));
  const changing = opened.transaction(TABLES, "readwrite");
  for (const name of TABLES) change(changing.objectStore(name), name);
  return new Promise((resolve, reject) => {
    changing.oncomplete = resolve;
    changing.onabort = () => reject(changing.error); // the disk is full, for example
  });
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
  const rows = { heads: head, bodies: conversation };
  await write((stored, name) => stored instanceof Map
    ? stored.set(id, structuredClone(rows[name])) : stored.put(rows[name]));
  await makeRoom(id);
}

/** Forget a conversation. */
export const remove = (id) => write((stored) => { stored.delete(id); });

async function makeRoom(keep) {
  let size = 0;
  for (const [count, head] of (await heads()).entries()) {
    size += head.size;
    if (head.id !== keep && (count >= MOST || size > MOST_CHARACTERS)) await remove(head.id);
  }
}
