// The policies in force: which version, since when, what came of the last reload; and the candidate beside them.

import { count, failed, fill, h, moment, percent, score, short, table, words } from "./dom.js";

const EVERY_MS = 5000;
const RESULTS = {
  ok: ["In force", "green"],
  invalid: ["Not valid: the version before stays", "red"],
  self_test: ["Its examples do not hold: the version before stays", "red"],
  error: ["Failed: the version before stays", "red"],
};

export function policiesView(root, shell) {
  let timer = null;
  let told = "";
  const cards = h("div.cards", {});
  const facts = h("p.facts.muted", {});
  fill(root, h("div.head", {}, h("h1", { id: "policies-title" }, "Policies")), facts, cards);

  async function load() {
    clearTimeout(timer);
    if (root.hidden) return;
    try {
      if (!document.hidden) show(await shell.refresh());
    } catch (error) {
      if (error.status === 401 || error.status === 403) return;
      told = "";
      fill(cards, failed(error, load));
    }
    timer = setTimeout(load, EVERY_MS);
  }

  function show(state) {
    const now = JSON.stringify(state);
    if (now === told) return; // nothing new: what is open, chosen or focused stays
    told = now;
    const { data, candidate, triage, keys, audit, version } = state;
    fill(
      facts,
      [`version ${version}`, `triage ${triage.weights}`, keys.startsWith("none") ? keys.replace("none", "no keys") : keys, `records: ${kept(audit)}`].map((fact) => h("span", {}, fact)),
    );
    fill(cards, data.map((policy) => card(policy, policy.name === state.default)), candidate ? tried(candidate) : null);
  }

  return {
    show() {
      if (shell.state) show(shell.state);
      load();
    },
    hide: () => clearTimeout(timer),
  };
}

function kept(audit) {
  if (!audit) return "none";
  if (!audit.up) return "the store does not answer";
  return { none: "without text", redacted: "with redacted text", full: "with text" }[audit.text] ?? audit.text;
}

function card(policy, first) {
  return h(
    "article.panel",
    { "aria-label": policy.name },
    h("div.head", {}, h("h2", {}, policy.name), first ? h("span.pill.grey", {}, "default") : null, mode(policy)),
    inForce(policy),
    reload(policy.last_reload),
    thresholds(policy),
  );
}

const mode = ({ mode: name }) => (name === "shadow" ? h("span.pill.violet", {}, "shadow mode") : null);

function inForce(policy, more = []) {
  const facts = [
    ["Version", h("code", { title: policy.version }, short(policy.version))],
    ["Loaded", moment(policy.loaded_at)],
    ["Operating point", policy.operating_point],
    ["Examples", policy.examples ? count(policy.examples) : "none"],
    ...more,
  ];
  return h("dl.list", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function reload(last) {
  if (!last) return h("p.muted", {}, "Not reloaded since the start.");
  const [name, colour] = RESULTS[last.result] ?? [words(last.result), "grey"];
  return h(
    `div.reload.${colour}`,
    {},
    h("p", {}, h(`strong.${colour}`, {}, name), " ", h("span.muted", {}, "last reload ", moment(last.at), ", version ", h("code", {}, short(last.version)))),
    last.reason ? h("pre", { tabindex: "0", "aria-label": "Reason" }, last.reason) : null,
  );
}

function thresholds({ thresholds: found }) {
  const rows = Object.entries(found).map(([label, routes]) => [
    words(label),
    h("td", {}, Object.entries(routes).sort(([, a], [, b]) => a - b).map(([route, least]) => h("span.least", {}, `${route} `, h("span.number", {}, score(least)))), Object.keys(routes).length ? null : "let through"),
  ]);
  return h("details", {}, h("summary", {}, "Thresholds"), table("From which score on", ["Label", "Route"], rows));
}

function tried(candidate) {
  const { compared, disagreed = 0, disagreements = [] } = candidate;
  const what = candidate.runs === "serve" ? "serves" : "looks at";
  const rows = disagreements.map((one) => [words(one.live), words(one.candidate), h("td.number", {}, count(one.count))]);
  return h(
    "article.panel",
    { "aria-label": candidate.name },
    h("div.head", {}, h("h2", {}, candidate.name), h("span.pill.violet", {}, "candidate"), mode(candidate)),
    inForce(candidate, [
      ["Triage", h("code", {}, candidate.weights)],
      ["Share", `${what} ${percent(candidate.share, 1)} of ${candidate.beside}`],
      ...(compared === null ? [] : [["Decided otherwise", `${count(disagreed)} of ${count(compared)} (${percent(disagreed, compared)})`]]),
    ]),
    rows.length ? table("Disagreements", ["Live", "Candidate", "Requests"], rows, "last") : null,
    reload(candidate.last_reload),
    thresholds(candidate),
  );
}
