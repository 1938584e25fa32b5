// On a narrow screen the list and the document lie over the conversation: then the keyboard and
// screen readers stay in what is on top.

const COVERS = { reading: "(max-width: 760px)", listing: "(max-width: 1100px)" };

/** Whether the list or a document is open. */
export function cover(name, open) {
  document.body.classList.toggle(name, open);
  apply();
}

function apply() {
  document.querySelector("main").inert = Object.entries(COVERS).some(([name, width]) =>
    document.body.classList.contains(name) && matchMedia(width).matches);
}

for (const width of Object.values(COVERS)) matchMedia(width).addEventListener("change", apply);
