// What somebody thinks of a decision: one button for each thing that can be said of it, and a key for each button.

import * as api from "./api.js";
import { h, words } from "./dom.js";

export const KEYS = { w: "wrong_refusal", c: "correct", m: "missed_harm" };
const NAMES = { wrong_refusal: "Wrong refusal", correct: "Correct", missed_harm: "Missed harm" };

/** What can be said: of a refusal that it was wrong, of anything else that it missed harm. */
export function sayable(decision, source = "") {
  if (decision === "error") return [];
  if (decision === "block" || decision === "would_block") return ["wrong_refusal", "correct"];
  return source === "model" ? ["wrong_refusal", "missed_harm", "correct"] : ["missed_harm", "correct"];
}

/**
 * The buttons for one decision. `said`: the verdict that is stored, if any; `announce` is told what came of a press.
 * Returns the element, and `say(verdict)`, which does nothing where that cannot be said.
 */
export function opinion(row, said, announce) {
  const buttons = new Map();
  const show = (verdict) => {
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === verdict));
  };
  const say = async (verdict) => {
    if (!buttons.has(verdict)) return;
    const before = said;
    show(verdict);
    try {
      await api.feedback(row, verdict);
      said = verdict;
      announce(`Stored: ${words(verdict)}.`);
    } catch (error) {
      show(before);
      announce(`Not stored. ${error.message}`, true);
    }
  };
  for (const verdict of sayable(row.decision, row.source)) {
    const key = Object.keys(KEYS).find((name) => KEYS[name] === verdict);
    const title = `${NAMES[verdict]} (${key})`;
    const face = [NAMES[verdict], " ", h("kbd", {}, key)];
    buttons.set(verdict, h("button.say", { type: "button", title, "data-verdict": verdict, onclick: () => say(verdict) }, face));
  }
  show(said);
  const node = h("div.opinion", { role: "group", "aria-label": "What was this decision worth?" }, [...buttons.values()]);
  return { node, say, buttons: [...buttons.values()], show: (verdict) => ((said = verdict), show(verdict)) };
}
