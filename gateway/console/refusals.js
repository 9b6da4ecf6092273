// Decisions as they come, the newest first: why, how sure, and a word on each by one click or one key.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { KEYS } from "./opinion.js";
import { entry } from "./entry.js";

const EVERY_MS = 3000;
const MOST_SHOWN = 500;
const KINDS = [
  ["block", "Refused"],
  ["would_block", "Would refuse"],
  ["advise", "Advised"],
  ["allow,modify", "Let through"],
  ["error", "Failed"],
];
const NOTHING = {
  block: "Nothing has been refused yet. A refusal appears here as soon as it is on record.",
  would_block: "Nothing would have been refused in shadow mode.",
  advise: "Nothing has been let through with guidance.",
  "allow,modify": "Nothing has been let through yet. What is let through is recorded in batches, every second or so.",
  error: "Nothing has failed.",
};

export function refusalsView(root, shell) {
  let kind = "block";
  let entries = [];
  let chosen = 0;
  let more = false;
  let paused = false;
  let timer = null;
  let round = 0; // answers to an older question than this are dropped

  const radio = ([value, name], at) =>
    h("label", {}, h("input", { type: "radio", name: "kind", value, checked: at === 0, onchange: () => choose(value) }), h("span", {}, name));
  const search = h("input", { id: "find", type: "search", placeholder: "req_…", spellcheck: "false", autocomplete: "off" });
  const live = h("span.live", { role: "status" });
  const pause = h("button", { type: "button", id: "pause", onclick: toggle });
  const list = h("ol.feed", { "aria-label": "Decisions, the newest first" });
  const older = h("button", { type: "button", hidden: true, onclick: append }, "Older");
  const note = h("div", {});
  fill(
    root,
    h("div.head", {}, h("h1", { id: "refusals-title" }, "Refusals"), live, pause),
    h(
      "form.tools",
      { onsubmit: find, role: "search" },
      h("fieldset.choice", {}, h("legend.off", {}, "Which decisions"), KINDS.map(radio)),
      h("div.find", {}, h("label", { for: "find" }, "Request id"), search, h("button", { type: "submit" }, "Find")),
    ),
    note,
    list,
    h("p.actions", {}, older),
  );
  list.addEventListener("focusin", (event) => {
    const at = entries.findIndex((one) => one.node.contains(event.target));
    if (at >= 0) mark(at);
  });

  function choose(value) {
    kind = value;
    search.value = "";
    reset();
    poll();
  }

  function find(event) {
    event.preventDefault();
    reset();
    poll();
  }

  function reset() {
    round += 1;
    entries = [];
    chosen = 0;
    more = false;
    fill(list);
    fill(note);
    older.hidden = true;
  }

  function toggle() {
    paused = !paused;
    state();
    if (!paused) poll();
  }

  function state(trouble = "") {
    pause.textContent = paused ? "Go on" : "Pause";
    pause.append(" ", h("kbd", {}, "p"));
    live.textContent = trouble || (paused ? "Paused" : search.value.trim() ? "Found" : "Live");
    live.className = `live ${trouble ? "red" : paused ? "grey" : "green"}`;
  }

  const wanted = () => ({ kinds: kind.split(","), request_id: search.value.trim() });

  async function poll() {
    clearTimeout(timer);
    if (root.hidden) return;
    if (!shell.state.audit) {
      fill(note, h("div.empty", {}, h("p", {}, "This gateway keeps no records: the setting "), h("code", {}, "audit.url"), h("p", {}, " is null.")));
      pause.hidden = true;
      return;
    }
    const mine = round;
    try {
      if (!document.hidden) {
        const { data, has_more } = await api.decisions(wanted());
        if (mine !== round) return;
        if (!entries.length) more = has_more;
        merge(data);
        state();
      }
    } catch (error) {
      if (mine !== round || error.status === 401 || error.status === 403) return;
      state(error.status ? `${error.message}` : "Not reached, trying again");
    }
    if (!paused) timer = setTimeout(poll, EVERY_MS);
  }

  /** New decisions on top, without moving the focus; known ones with what has been said of them since. */
  function merge(data) {
    const known = new Map(entries.map((one) => [one.id, one]));
    const fresh = data.filter((row) => !known.has(row.id));
    for (const row of data) known.get(row.id)?.update(row);
    const begun = entries.length > 0;
    const held = entries[chosen]?.id;
    entries = [...entries, ...fresh.map((row) => entry(row, shell.announce, begun))].sort((a, b) => (a.id < b.id ? 1 : -1));
    if (entries.length > MOST_SHOWN) {
      for (const gone of entries.splice(MOST_SHOWN)) gone.node.remove();
      more = true;
    }
    place(fresh.length > 0);
    chosen = Math.max(0, entries.findIndex((one) => one.id === held));
    mark(chosen);
    if (begun && fresh.length) shell.announce(`${fresh.length} new`);
  }

  /** Each entry where it belongs; one that is in its place already is not touched, so that it keeps the focus. */
  function place(changed) {
    if (changed) {
      let next = list.firstElementChild;
      for (const one of entries) {
        if (one.node === next) next = next.nextElementSibling;
        else list.insertBefore(one.node, next);
      }
    }
    older.hidden = !more || Boolean(search.value.trim());
    const found = search.value.trim() ? "No decision with this request id is on record." : NOTHING[kind];
    fill(note, entries.length ? null : h("div.empty", {}, h("p", {}, found)));
  }

  /** The one entry that the tab key stops at. */
  function mark(at) {
    chosen = at;
    entries.forEach((one, index) => one.stop(index === at));
  }

  async function append() {
    const mine = round;
    older.disabled = true;
    try {
      const { data, has_more } = await api.decisions({ ...wanted(), before: entries.at(-1).id });
      if (mine !== round) return;
      more = has_more && entries.length + data.length < MOST_SHOWN;
      const first = entries.length;
      merge(data);
      entries[first]?.node.focus();
    } catch (error) {
      shell.announce(error.message, true);
    } finally {
      older.disabled = false;
    }
  }

  function go(to) {
    const at = Math.min(entries.length - 1, Math.max(0, to));
    mark(at);
    entries[at].node.focus();
    entries[at].node.scrollIntoView({ block: "nearest" });
  }

  return {
    show() {
      state();
      poll();
    },
    hide: () => clearTimeout(timer),
    press({ key, target }) {
      if (key === "p") return toggle(), true;
      if (!entries.length) return false;
      const inside = list.contains(document.activeElement);
      const arrows = inside || target === document.body || target.id === "main";
      if (key === "j" || (key === "ArrowDown" && arrows)) return go(inside ? chosen + 1 : chosen), true;
      if (key === "k" || (key === "ArrowUp" && arrows)) return go(inside ? chosen - 1 : chosen), true;
      if (key === "Home" && inside) return go(0), true;
      if (key === "End" && inside) return go(entries.length - 1), true;
      if (KEYS[key] && inside) return entries[chosen].say(KEYS[key]), true;
      return false;
    },
  };
}
