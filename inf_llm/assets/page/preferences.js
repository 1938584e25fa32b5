// What is set once for all conversations. This file runs before the page is drawn, so that it is
// drawn in the right colours; it is no module.
"use strict";

const preferences = {
  /** A value that was set, or null. */
  get(name) {
    if (name in this.unsaved) return this.unsaved[name];
    try {
      return localStorage.getItem("inf-llm." + name) ?? sessionStorage.getItem("inf-llm." + name);
    } catch {
      return null; // the browser keeps nothing
    }
  },
  /** Keep a value; one that does not last is gone when the tab is closed. */
  set(name, value, lasts = true) {
    this.unsaved[name] = value;
    try {
      localStorage.removeItem("inf-llm." + name);
      sessionStorage.removeItem("inf-llm." + name);
      if (value) (lasts ? localStorage : sessionStorage).setItem("inf-llm." + name, value);
      delete this.unsaved[name];
    } catch { /* the browser keeps nothing, or no more */ }
  },
  unsaved: {}, // what could not be kept
  showTheme() {
    document.documentElement.dataset.theme = this.get("theme") ?? "system";
  },
};
globalThis.preferences = preferences;
preferences.showTheme();
