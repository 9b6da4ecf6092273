// The shell: sections by hash, the key, and the shortcuts. Each section is a module that says what it shows.

import * as api from "./api.js";
import { ago, fill, h } from "./dom.js";
import { matrixView } from "./matrix.js";
import { policiesView } from "./policies.js";
import { refusalsView } from "./refusals.js";
import { tryView } from "./try.js";

const NAMES = ["try", "refusals", "matrix", "policies"];
const $ = (id) => document.getElementById(id);
const single = () => sessionStorage.getItem("hhh-console-keys") !== "off";

let forgotten;
const shell = {
  state: null,
  /** Say something to whoever looks, and to whoever listens. */
  announce(text, wrong = false) {
    const said = $("said");
    said.textContent = text;
    said.classList.toggle("wrong", wrong);
    said.classList.add("shown");
    clearTimeout(forgotten);
    forgotten = setTimeout(() => said.classList.remove("shown"), 4000);
  },
  /** The policies in force, as the gateway last told them. */
  async refresh() {
    shell.state = await api.policies();
    return shell.state;
  },
};

const views = {};
let current = null;

function show() {
  const name = NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : (current ?? "try");
  if (name === current) return;
  if (current) views[current].hide?.();
  current = name;
  for (const one of NAMES) {
    $(`view-${one}`).hidden = one !== name;
    const link = document.querySelector(`nav a[href="#${one}"]`);
    if (one === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  views[name].show();
}

function ask(why = "") {
  $("key-error").textContent = why;
  $("key-input").setAttribute("aria-invalid", String(Boolean(why)));
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key-input").focus();
}

async function unlock(event) {
  event.preventDefault();
  const given = $("key-input").value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) return ask("That is no key: a key has neither spaces nor letters with accents.");
  try {
    shell.state = await api.policies(given);
  } catch (error) {
    return ask(told(error));
  }
  api.key.set(given);
  $("key-input").value = "";
  $("key-dialog").close();
  begin();
}

function told(failure) {
  if (failure.status === 401) return `The gateway does not accept this key. ${failure.message}`;
  if (failure.status === 403) return "The gateway knows this key, but it is not an admin's.";
  return failure.message;
}

function begin() {
  $("key-forget").hidden = !api.key.get();
  const made = { try: tryView, refusals: refusalsView, matrix: matrixView, policies: policiesView };
  for (const name of NAMES) views[name] ??= made[name]($(`view-${name}`), shell);
  if (current) views[current].show();
  else show();
}

function forget() {
  api.key.forget();
  location.reload();
}

/** A letter or digit pressed anywhere but in a text field. */
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]") || !single() || !current) return;
  if (event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select")) return;
  if (event.key >= "1" && event.key <= "4") location.hash = NAMES[Number(event.key) - 1];
  else if (event.key === "?") $("shortcuts").showModal();
  else if (event.key === "/") {
    location.hash = "try";
    show();
    views.try.focus();
  } else if (!views[current].press?.(event)) return;
  event.preventDefault();
}

async function start() {
  window.addEventListener("hashchange", show);
  document.addEventListener("keydown", pressed);
  $("key-form").addEventListener("submit", unlock);
  $("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
  $("key-forget").addEventListener("click", forget);
  $("shortcuts-open").addEventListener("click", () => $("shortcuts").showModal());
  $("shortcuts-close").addEventListener("click", () => $("shortcuts").close());
  $("shortcuts-on").checked = single();
  $("shortcuts-on").addEventListener("change", (event) => {
    sessionStorage.setItem("hhh-console-keys", event.target.checked ? "on" : "off");
  });
  api.onLocked((failure) => {
    if ($("key-dialog").open) return;
    api.key.forget();
    ask(told(failure));
  });
  setInterval(() => {
    for (const node of document.querySelectorAll("time[data-at]")) node.textContent = ago(Number(node.dataset.at));
  }, 10_000);
  await open();
}

async function open() {
  try {
    const { key } = await api.about();
    if (key && !api.key.get()) return ask();
    if (!key) api.key.forget();
    await shell.refresh();
  } catch (error) {
    if (error.status !== 401 && error.status !== 403) unreachable(error);
    return;
  }
  begin();
}

function unreachable(error) {
  const again = () => {
    fill($("view-try"));
    open();
  };
  fill(
    $("view-try"),
    h("div.problem", { role: "alert" }, h("p", {}, error.message), h("button", { type: "button", onclick: again }, "Try again")),
  );
}

start();
