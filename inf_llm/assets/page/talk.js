// The turns of the conversation that is open.

import { isRunning } from "./answers.js";
import { when } from "./changes.js";
import { isEmpty } from "./conversations.js";
import { $, announce } from "./dom.js";
import { follow } from "./follow.js";
import { turnView } from "./turn.js";

const following = follow($("talk"), $("turns"), $("newest"));
let shown = null, views = new Map();

/** Show a conversation from its end. */
export function showTalk(conversation) {
  shown = conversation;
  views = new Map();
  $("turns").replaceChildren();
  drawTurns();
  following.toBottom();
}

function drawTurns() {
  const before = views.size;
  for (const [turn, view] of views)
    if (!shown.turns.includes(turn)) { view.node.remove(); views.delete(turn); }
  for (const turn of shown.turns) {
    if (views.has(turn)) { views.get(turn).redraw(); continue; }
    const view = turnView(shown, turn);
    views.set(turn, view);
    $("turns").append(view.node);
  }
  showHint();
  if (before && views.size > before) following.toBottom();
}

/** What to do where there are no turns yet. */
function showHint() {
  const reading = shown.documents.some((row) => row.status === "reading" || row.status === "sending");
  $("empty").hidden = !isEmpty(shown);
  $("hint").hidden = isEmpty(shown) || shown.turns.length > 0;
  $("hint").textContent = reading ? "You can ask already: the answer comes when the text is read."
    : "Ask a question. A name above opens the text itself.";
}

when("turns", (conversation) => {
  if (conversation !== shown) return;
  drawTurns();
  if (!isRunning(shown) && shown.turns.at(-1)?.state === "done") announce("The answer is complete.");
});
when("turn", (turn) => views.get(turn)?.update());
when("documents", (conversation) => {
  if (conversation === shown) showHint();
});
