// Elements, and how values are written. Whatever a message says becomes a text node: no markup is ever parsed here.

/** An element: `h("p.muted", {title: "…", onclick: f, style: {"--x": "1"}}, "text", child)`. */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [property, amount] of Object.entries(value)) node.style.setProperty(property, amount);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The children of a node, all anew. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

export const score = (value) => Number(value).toFixed(2);
export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
export const ms = (value) => (value < 1000 ? `${value < 10 ? Number(value).toFixed(2) : Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
export const count = (value) => Number(value).toLocaleString("en");
export const short = (version) => String(version).replace("sha256:", "").slice(0, 8);
export const words = (name) => String(name).replaceAll("_", " ").replace(".", ": ");

/** A moment, in seconds since 1970: how long ago, and exactly when the pointer rests on it. */
export function moment(at) {
  const when = new Date(at * 1000);
  return h("time", { datetime: when.toISOString(), title: when.toLocaleString(), "data-at": at }, ago(at));
}

export function ago(at) {
  const seconds = Math.max(0, Date.now() / 1000 - at);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(at * 1000).toLocaleDateString("en", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** What a decision is called here, and its colour. */
export const DECISIONS = {
  block: ["Refused", "red"],
  would_block: ["Would refuse", "violet"],
  advise: ["Advised", "amber"],
  modify: ["Rewritten", "amber"],
  allow: ["Let through", "green"],
  error: ["Failed", "red"],
};

export function pill(decision) {
  const [name, colour] = DECISIONS[decision] ?? [words(decision), "grey"];
  return h(`span.pill.${colour}`, {}, name);
}

/** A table; `head` and each row are lists of cells, a cell being text, an element, or a whole `td` or `th`. */
export function table(caption, head, rows, kind = "") {
  const cell = (value, at) => (value instanceof HTMLTableCellElement ? value : h(at ? "td" : "th", at ? {} : { scope: "row" }, value));
  return h(
    "div.scroll",
    {},
    h(
      `table${kind ? `.${kind}` : ""}`,
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell)))),
    ),
  );
}

export function failed(error, again) {
  return h(
    "div.problem",
    { role: "alert" },
    h("p", {}, error.message),
    again ? h("button", { type: "button", onclick: again }, "Try again") : null,
  );
}
