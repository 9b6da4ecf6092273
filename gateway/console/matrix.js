// The live confusion matrix: the standing probes as they were last treated, and what people said of decisions.

import * as api from "./api.js";
import { count, failed, fill, h, moment, percent, score, short, table, words } from "./dom.js";

const EVERY_MS = 15_000;
const EXPECTED = [["answered", "Answer"], ["advised", "Answer with guidance"], ["refused", "Refuse"]];
const OBSERVED = ["answered", "advised", "refused", "would_refuse", "failed"];
const SEEN = { answered: "answered", advised: "advised", refused: "refused", would_refuse: "would refuse", failed: "failed" };

export function matrixView(root, shell) {
  let timer = null;
  let running = false;
  const probes = h("div.stack", {});
  const people = h("div.stack", {});
  const days = h("select", { id: "days", onchange: said }, [7, 30, 90].map((n) => h("option", { value: n, selected: n === 30 }, `${n} days`)));
  const button = h("button.main", { type: "button", id: "run-probes", onclick: run }, "Run probes ", h("kbd", {}, "r"));
  fill(
    root,
    h("div.head", {}, h("h1", { id: "matrix-title" }, "Confusion matrix")),
    h("div.split.even", {}, [
      h("div.panel", {}, h("div.head", {}, h("h2", {}, "Standing probes"), button), probes),
      h("div.panel", {}, h("div.head", {}, h("h2", {}, "Feedback"), h("label.off", { for: "days" }, "How far back"), days), people),
    ]),
  );

  async function load() {
    clearTimeout(timer);
    if (root.hidden) return;
    if (!shell.state.audit) {
      const why = "This gateway keeps no records (audit.url is null), so only a run of now can be shown.";
      if (!probes.childElementCount) fill(probes, h("div.empty", {}, h("p", {}, why)));
      return fill(people, h("div.empty", {}, h("p", {}, "Feedback needs records.")));
    }
    if (!document.hidden) await Promise.all([last(), said()]);
    timer = setTimeout(load, EVERY_MS);
  }

  async function last() {
    if (running) return;
    try {
      const { data } = await api.probes();
      if (!running) show(data[0]);
    } catch (error) {
      fill(probes, failed(error, load));
    }
  }

  async function said() {
    try {
      opinions(people, await api.opinions(days.value));
    } catch (error) {
      fill(people, failed(error, load));
    }
  }

  async function run() {
    if (running) return;
    running = true;
    button.disabled = true;
    button.firstChild.data = "Running … ";
    try {
      show(await api.runProbes());
      shell.announce("The probes have run.");
    } catch (error) {
      shell.announce(`The probes did not run. ${error.message}`, true);
    } finally {
      running = false;
      button.disabled = false;
      button.firstChild.data = "Run probes ";
    }
  }

  function show(found) {
    if (!found) return fill(probes, h("div.empty", {}, h("p", {}, "The probes have not run yet.")));
    fill(probes, probed(found));
  }

  return { show: load, hide: () => clearTimeout(timer), press: ({ key }) => key === "r" && (run(), true) };
}

function probed({ results, policy, weights, matrix }) {
  const harmless = results.filter((one) => one.expected !== "refused");
  const harmful = results.filter((one) => one.expected === "refused");
  const refused = harmless.filter((one) => one.observed === "refused" || one.observed === "would_refuse");
  const missed = harmful.filter((one) => one.observed === "answered" || one.observed === "advised");
  const columns = OBSERVED.filter((name) => name !== "would_refuse" && name !== "failed" || results.some((one) => one.observed === name));
  const of = (expected, observed) => results.filter((one) => one.expected === expected && one.observed === observed).length;
  const rows = EXPECTED.filter(([name]) => results.some((one) => one.expected === name));
  const right = (expected, observed) => expected === observed || (expected === "refused" && observed === "would_refuse");
  return [
    h("p.facts.muted", {}, h("span", {}, moment(results[0].at)), h("span", {}, `${policy.name}@${short(policy.version)}`), h("span", {}, `triage ${weights}`)),
    figures([
      ["Harmless, refused", refused.length, harmless.length],
      ["Harmful, let through", missed.length, harmful.length],
    ]),
    table("What should be, and what was", ["Should", ...columns.map((name) => SEEN[name])], rows.map(([name, title]) => [
      title,
      ...columns.map((seen) => cell(of(name, seen), right(name, seen))),
    ]), "matrix"),
    table("By suite", ["Suite", ...columns.map((name) => SEEN[name])], Object.entries(matrix).map(([suite, counts]) => [
      suite,
      ...columns.map((name) => h("td.number", {}, counts[name] ? count(counts[name]) : "·")),
    ]), "numbers"),
    wrong("Harmless, and refused", refused),
    wrong("Harmful, and let through", missed),
  ];
}

function wrong(title, found) {
  if (!found.length) return null;
  const rows = found.map((one) =>
    h("li", {}, h("p.said", {}, one.text), h("p.facts.muted", {}, h("span", {}, `${words(one.category)} ${score(one.score)}`), h("span", {}, `suite ${one.suite}`))),
  );
  return h("details", { open: found.length < 4 }, h("summary", {}, `${title}: ${found.length}`), h("ul.wrong", {}, rows));
}

function opinions(node, { matrix, verdicts, wrong_by_category: wrong }) {
  const total = Object.values(verdicts).reduce((sum, one) => sum + one, 0);
  if (!total) {
    const why = "Nobody has said anything of a decision yet. Press w, c or m on one in the list, or let your client send feedback.";
    return fill(node, h("div.empty", {}, h("p", {}, why)));
  }
  const columns = [["answered", "answered"], ["refused_by_model", "refused by the model"], ["refused", "refused"]].filter(
    ([name]) => name !== "refused_by_model" || matrix.harmless[name] || matrix.harmful[name],
  );
  const right = (truth, name) => (truth === "harmful") === (name === "refused");
  const row = (truth) => [truth === "harmless" ? "Harmless" : "Harmful", ...columns.map(([name]) => cell(matrix[truth][name], right(truth, name)))];
  fill(
    node,
    h("p.facts.muted", {}, h("span", {}, `${count(total)} ${total === 1 ? "decision" : "decisions"} that somebody spoke of; no share of all traffic`)),
    figures([
      ["Of refusals, wrong", matrix.harmless.refused, matrix.harmless.refused + matrix.harmful.refused],
      ["Missed harm", matrix.harmful.answered + matrix.harmful.refused_by_model, total],
    ]),
    table("What they were, and how they were treated", ["Message", ...columns.map(([, name]) => name)], [row("harmless"), row("harmful")], "matrix"),
    Object.keys(wrong).length
      ? table("Wrong refusals by category", ["Category", "Count"], Object.entries(wrong).map(([name, n]) => [words(name), h("td.number", {}, count(n))]), "numbers")
      : null,
  );
}

const cell = (n, right) => h(`td.cell${n ? (right ? ".green" : ".red") : ""}`, {}, count(n));

function figures(found) {
  return h(
    "dl.figures",
    {},
    found.map(([name, part, whole]) => h("div", {}, h("dt", {}, name), h("dd", {}, percent(part, whole), h("span.muted", {}, ` ${count(part)} of ${count(whole)}`)))),
  );
}
