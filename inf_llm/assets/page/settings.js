// The panel of settings. What is set holds at once.

import { whenKeyIsWanted } from "./api.js";
import { $ } from "./dom.js";

const panel = $("settings");

/** @param forget deletes all conversations
 *  @param keyGiven is called after another key was given */
export function setUpSettings(forget, keyGiven) {
  fill();
  $("settings-open").addEventListener("click", () => show(false));
  whenKeyIsWanted(() => show(true));
  panel.addEventListener("input", (event) => take(event.target));
  panel.addEventListener("close", () => { if (keyBefore !== preferences.get("key")) keyGiven(); });
  $("forget").addEventListener("click", () => {
    if ($("forget").dataset.sure) { panel.close(); forget(); }
    $("forget").dataset.sure = "yes";
    $("forget").textContent = "Delete all? Press again";
  });
}

let keyBefore = null;

function show(keyWanted) {
  keyBefore = keyWanted ? "" : preferences.get("key");
  $("key-wanted").hidden = !keyWanted;
  delete $("forget").dataset.sure;
  $("forget").textContent = "Delete all conversations";
  if (!panel.open) panel.showModal();
  (keyWanted ? $("key") : panel.querySelector("h2")).focus();
}

function fill() {
  $("key").value = preferences.get("key") ?? "";
  $("key-lasts").checked = Boolean(preferences.get("key-lasts"));
  $("system").value = preferences.get("system") ?? "";
  $("temperature").value = preferences.get("temperature") ?? "0";
  $("length").value = preferences.get("length") ?? "";
  const themes = [...panel.querySelectorAll("[name=theme]")];
  (themes.find(({ value }) => value === preferences.get("theme")) ?? themes[0]).checked = true;
  showTemperature();
}

function take(field) {
  if (field.name === "theme") preferences.set("theme", field.value);
  else if (field.id.startsWith("key")) takeKey();
  else preferences.set(field.id, field.validity.valid ? field.value.trim() : "");
  preferences.showTheme();
  showTemperature();
}

/** Without the tick the key is gone when the tab is closed. */
function takeKey() {
  const lasts = $("key-lasts").checked;
  preferences.set("key-lasts", lasts ? "yes" : "");
  preferences.set("key", $("key").value.trim(), lasts);
}

function showTemperature() {
  const value = Number($("temperature").value);
  $("temperature-shown").textContent = value ? value.toFixed(1) : "0, always the likeliest word";
}
