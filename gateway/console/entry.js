// One decision in the list.

import { h, moment, ms, pill, score, short, words } from "./dom.js";
import { opinion } from "./opinion.js";

/** Its element, and what the list does with it. `fresh`: it came while somebody looked. */
export function entry(row, announce, fresh) {
  const worth = opinion(row, row.feedback?.verdict ?? null, announce);
  const what = row.category && row.category !== "benign" ? words(row.category) : words(row.label || "not judged");
  const node = h(
    `li.entry${fresh ? ".fresh" : ""}`,
    { tabindex: "-1", "data-id": row.id, "aria-label": `${what}, ${row.decision}, score ${score(row.score)}` },
    h(
      "div.what",
      {},
      pill(row.decision),
      h("strong", {}, what),
      h("span.number", { title: `Score of ${words(row.label)}` }, score(row.score)),
      moment(row.at),
    ),
    row.text === null ? h("p.said.muted", {}, "Text not kept (audit.text: none)") : h("p.said", {}, row.text),
    h("p.facts.muted", {}, facts(row).map((fact) => h("span", {}, fact))),
    worth.node,
  );
  return {
    id: row.id,
    node,
    say: worth.say,
    update: (now) => worth.show(now.feedback?.verdict ?? null),
    stop(here) {
      node.tabIndex = here ? 0 : -1;
      node.classList.toggle("chosen", here);
      for (const button of worth.buttons) button.tabIndex = here ? 0 : -1;
    },
  };
}

function facts(row) {
  return [
    row.reason,
    row.stage && row.stage !== "triage" ? `stage ${row.stage}` : null,
    row.route ? `route ${row.route}` : null,
    `${row.policy.name}@${short(row.policy.version)}`,
    row.endpoint,
    row.key ? `key ${row.key}` : null,
    `checks ${ms(row.latency_ms.guard)}`,
    h("code", {}, row.request_id),
  ].filter(Boolean);
}
