// One question and its answer, as they are seen.

import * as answers from "./answers.js";
import { button, copyButton, element, number } from "./dom.js";
import * as markdown from "./markdown.js";
import { sources } from "./sources.js";

const NOTES = {
  waiting: "Waiting for the model…",
  answering: "Answering…",
  cut: "The answer was cut at its longest length.",
  stopped: "Stopped.",
};

/** What is seen of a turn: its node, and a function that brings it up to date. */
export function turnView(conversation, turn) {
  const asked = element("div.asked"), answer = element("div.answer");
  const note = element("p.note.quiet"), below = element("div.below");
  const node = element("article.turn", { "aria-label": "Question and answer" }, asked, answer, note, below);
  let drawing = false, state = null;

  function draw() {
    drawing = false;
    const busy = turn.state === "waiting" || turn.state === "answering";
    markdown.show(answer, turn.answer);
    answer.setAttribute("aria-busy", busy); // a screen reader reads it when it is complete
    answer.hidden = !answer.childElementCount;
    note.textContent = noteOf(turn);
    note.className = turn.state === "failed" ? "note bad" : "note quiet";
    note.hidden = !note.textContent;
    node.classList.toggle("busy", busy);
    if (turn.state === state) return;
    state = turn.state;
    below.replaceChildren(...(busy ? [] : [actions(conversation, turn), ...sources(conversation, turn)]));
    showQuestion(asked, conversation, turn);
  }

  const view = {
    node,
    update() {
      if (!drawing) requestAnimationFrame(draw);
      drawing = true;
    },
    redraw() {
      state = null;
      draw();
    },
  };
  view.redraw();
  return view;
}

function noteOf(turn) {
  if (turn.state === "failed") return turn.error;
  if (turn.state !== "done") return turn.progress || NOTES[turn.state] || "";
  return [
    turn.answer ? "" : "The model said nothing.",
    turn.another ? "Asked with temperature 0.7, since 0 gives the same answer each time." : "",
    turn.counts?.cut ? `${number(turn.counts.cut)} tokens of the texts did not fit and were left out.` : "",
  ].filter(Boolean).join(" ");
}

function actions(conversation, turn) {
  const last = conversation.turns.at(-1) === turn, made = element("div.actions");
  if (turn.answer) made.append(copyButton("Copy the answer", () => turn.answer));
  if (last) {
    const again = turn.answer ? "Another answer" : "Try again";
    made.append(button("again", again, () => answers.askAgain(conversation, turn), { text: again, kind: "small.worded" }));
  }
  if (last && turn.answer && turn.state !== "done")
    made.append(button("on", "Go on", () => answers.goOn(conversation, turn), { text: "Go on", kind: "small.worded" }));
  const { counts } = turn;
  if (counts) made.append(element("span.quiet.counts", {}, [
    counts.first === null ? "" : `${(counts.first / 1000).toFixed(1)} s`,
    `${number(counts.cached)} of ${number(counts.prompt)} tokens were in memory`,
  ].filter(Boolean).join(" · ")));
  return made;
}

function showQuestion(asked, conversation, turn) {
  const edit = button("edit", "Change the question", () => showEditor(asked, conversation, turn));
  edit.disabled = answers.isRunning(conversation);
  asked.replaceChildren(edit, element("p", { dir: "auto" }, turn.question));
}

function showEditor(asked, conversation, turn) {
  const later = conversation.turns.at(-1) !== turn;
  const field = element("textarea", { value: turn.question, rows: 3, dir: "auto", "aria-label": "Question" });
  const back = () => { showQuestion(asked, conversation, turn); asked.querySelector("button").focus(); };
  const form = element("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const question = field.value.trim();
      if (question && !answers.isRunning(conversation)) answers.askAgain(conversation, turn, question);
    },
    onkeydown: (event) => {
      if (event.key === "Escape") back();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
      if (event.key === "Escape") event.stopPropagation();
    },
  }, field, element("div.row", {},
    element("span.quiet.grow", {}, later ? "The answers after it are removed." : ""),
    element("button.plain", { type: "button", onclick: back }, "Cancel"),
    element("button.main", {}, "Ask")));
  asked.replaceChildren(form);
  field.focus();
}
