// Elements, icons and words for the other modules.

export const $ = (id) => document.getElementById(id);
export const number = (value) => value.toLocaleString("en");

/** An element: element("a.quiet", { href: "#" }, "text", child). Keys with "on" are listeners. */
export function element(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = document.createElement(tag);
  made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const PATHS = {
  add: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "M5 13l4 4L19 7",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  again: "M19 12a7 7 0 1 1-2-5M19 3v5h-5",
  on: "M5 12h13M13 6l6 6-6 6",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  text: "M7 3h7l4 4v14H7zM14 3v4h4M10 12h5M10 16h5",
  previous: "M14 6l-6 6 6 6",
  next: "M10 6l6 6-6 6",
};

/** A picture of lines; what it means is said by the button that it is on. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture, and a text unless only its label is given. */
export function button(name, label, onclick, { text = "", kind = "small" } = {}) {
  const properties = { type: "button", title: label, onclick };
  if (!text) properties["aria-label"] = label;
  return element(`button.${kind}`, properties, icon(name), text);
}

/** Say something to those who hear the page. */
export function announce(text) {
  $("status").textContent = text;
}

async function copy(text) {
  try {
    return await navigator.clipboard.writeText(text);
  } catch { /* without TLS only the older way is left */ }
  const area = element("textarea", { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A button that copies what a function gives. */
export function copyButton(label, text, options) {
  const made = button("copy", label, async () => {
    await copy(text());
    made.firstChild.replaceWith(icon("done"));
    announce("Copied.");
    setTimeout(() => made.firstChild.replaceWith(icon("copy")), 1500);
  }, options);
  return made;
}
