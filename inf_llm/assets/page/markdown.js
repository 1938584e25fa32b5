// Answers as Markdown. What is HTML in them is shown as text, and what becomes of the rest goes
// through DOMPurify before it is a part of the page.

import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";
import { copyButton } from "./dom.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escape = (text) => text.replace(/[&<>"]/g, (found) => ESCAPES[found]);

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ raw }) => escape(raw),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`, // is not loaded
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong del a".split(" "),
    ..."table thead tbody tr th td input".split(" "),
  ],
  ALLOWED_ATTR: ["href", "start", "align", "type", "checked", "disabled", "class"],
  ALLOWED_URI_REGEXP: /^(https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

/** Show a text in a node. Blocks that are as they were stay, with what is selected in them. */
export function show(node, text) {
  const blocks = marked.lexer(text).filter((block) => block.type !== "space" && block.type !== "def");
  blocks.forEach((block, index) => {
    const shown = node.children[index];
    if (shown?.source === block.raw) return;
    const made = drawn(block);
    if (shown) shown.replaceWith(made);
    else node.append(made);
  });
  while (node.children.length > blocks.length) node.lastElementChild.remove();
}

function drawn(block) {
  const holder = document.createElement("div");
  holder.source = block.raw;
  holder.append(DOMPurify.sanitize(marked.parser([block]), ALLOWED));
  for (const part of holder.querySelectorAll("p, li, h1, h2, h3, h4, h5, h6, blockquote, td, th"))
    part.dir = "auto"; // each is written in its own direction
  for (const link of holder.querySelectorAll("a"))
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
  for (const box of holder.querySelectorAll("input")) box.setAttribute("aria-label", "Item of the list");
  for (const table of holder.querySelectorAll("table")) wrap(table);
  for (const code of holder.querySelectorAll("pre > code")) frame(code);
  return holder;
}

/** A wide table scrolls by itself. */
function wrap(table) {
  const around = document.createElement("div");
  Object.assign(around, { className: "wide", tabIndex: 0 });
  around.setAttribute("role", "region");
  around.setAttribute("aria-label", "Table");
  table.replaceWith(around);
  around.append(table);
}

/** A block of code has a bar with its language and a button. */
function frame(code) {
  const block = code.parentElement, bar = document.createElement("div"), name = document.createElement("span");
  bar.className = "bar";
  name.textContent = /language-(\S+)/.exec(code.className)?.[1] ?? "code";
  bar.append(name, copyButton("Copy the code", () => code.textContent));
  const around = document.createElement("div");
  around.className = "code";
  block.replaceWith(around);
  around.append(bar, block);
  Object.assign(block, { dir: "ltr", tabIndex: 0 });
  block.setAttribute("role", "region");
  block.setAttribute("aria-label", "Code");
}
