// Triage's scores as bars with the policy's thresholds, and the text with the words that moved them.

import { h, score, words } from "./dom.js";

const STRICT = ["allow", "advise", "review", "refuse"];
const COLOURS = { refuse: "red", review: "violet", advise: "amber", allow: "green" };

/** The route that a score reaches: that of the highest threshold, of equal ones the stricter. */
function reached(value, thresholds) {
  return Object.entries(thresholds)
    .filter(([, least]) => value >= least)
    .sort(([one, a], [other, b]) => a - b || STRICT.indexOf(one) - STRICT.indexOf(other))
    .at(-1)?.[0];
}

export function bars({ scores, thresholds, toxicity }) {
  const rows = Object.entries(scores).map(([label, value]) => bar(words(label), value, thresholds[label] ?? {}, label === "benign"));
  const limit = toxicity.limit === null ? {} : { refuse: toxicity.limit };
  if (Object.keys(scores).length) rows.push(bar("tone (toxicity)", toxicity.score, limit));
  if (!rows.length) return h("p.muted", {}, "Triage had nothing to score.");
  return h("ul.bars", {}, rows);
}

function bar(name, value, thresholds, benign = false) {
  const route = reached(value, thresholds);
  const ticks = Object.entries(thresholds).sort(([, a], [, b]) => a - b);
  const told = ticks.map(([which, least]) => `${which} from ${score(least)}`).join(", ");
  return h(
    "li",
    { title: told || null },
    h("span.name", {}, name),
    h(
      "span.track",
      { "aria-hidden": "true" },
      h(`span.amount${route ? `.${COLOURS[route]}` : benign ? ".green" : ""}`, { style: { "--at": String(value) } }),
      ticks.map(([which, least]) => h(`span.tick.${COLOURS[which]}`, { style: { "--at": String(least) } })),
    ),
    h("span.value", {}, score(value)),
    h("span.told", {}, route ? h(`strong.${COLOURS[route]}`, {}, route) : null, route && told ? " · " : null, told),
  );
}

/** The text with its weighty words marked, and the weights in a list. */
export function marked({ label, text, found, none }) {
  if (!found.length) return h("p.muted", {}, `None marked: ${none}.`);
  const parts = [];
  const characters = Array.from(text); // places are counted in characters, as Python does
  const most = found[0].weight;
  let at = 0;
  for (const { start, end, weight } of [...found].sort((a, b) => a.start - b.start)) {
    parts.push(characters.slice(at, start).join(""));
    parts.push(h("mark", { style: { "--weight": String(weight / most) }, title: `−${score(weight)}` }, characters.slice(start, end).join("")));
    at = end;
  }
  parts.push(characters.slice(at).join(""));
  return [
    h("p.said", {}, parts),
    h("ol.weights", {}, found.map((one) => h("li", {}, h("span.word", {}, one.words), " ", h("span.number", {}, score(one.weight))))),
    h("p.muted.small", {}, `How far the score for ${words(label)} falls without them.`),
  ];
}
