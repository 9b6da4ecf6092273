// The gateway's API. The key lives in this tab's session storage, and goes out as a bearer token to this gateway alone.

const KEY = "hhh-console-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Why a call failed: `status` is 0 where the gateway was not reached; `code` is OpenAI's. */
export class Failure extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let locked = () => {};

/** What to do when the key is not accepted, or is no admin's. */
export function onLocked(listener) {
  locked = listener;
}

// The page is at …/console, so what is relative to it is this gateway's, below whatever path it is served.
const address = (path) => new URL(path, document.baseURI).href;

/** The JSON that an endpoint answers. Throws `Failure`. */
export async function call(path, { method = "GET", body = null, withKey = key.get() } = {}) {
  const headers = {};
  if (withKey) headers.authorization = `Bearer ${withKey}`;
  if (body !== null) headers["content-type"] = "application/json";
  let reply;
  let said;
  try {
    reply = await fetch(address(path), { method, headers, body: body === null ? null : JSON.stringify(body) });
    said = await reply.json();
  } catch (error) {
    if (reply && !(error instanceof TypeError)) throw new Failure(reply.status, `The gateway answered ${reply.status}.`);
    throw new Failure(0, "The gateway does not answer.");
  }
  if (reply.ok) return said;
  const failure = new Failure(reply.status, said?.error?.message ?? `The gateway answered ${reply.status}.`, said?.error?.code);
  if (reply.status === 401 || reply.status === 403) locked(failure);
  throw failure;
}

export const about = () => call("console/about.json", { withKey: "" });
export const policies = (withKey) => call("v1/policies", withKey === undefined ? {} : { withKey });
export const check = (messages, policy) =>
  call("v1/guardrails/check", { method: "POST", body: { messages, detail: true, ...(policy ? { policy } : {}) } });
export const feedback = ({ request_id, id }, verdict) =>
  call("v1/feedback", { method: "POST", body: { request_id, verdict, ...(id ? { decision_id: id } : {}) } });
export const opinions = (days) => call(`v1/feedback?days=${days}`);
export const probes = () => call("v1/probes");
export const runProbes = () => call("v1/probes", { method: "POST" });

export function decisions({ kinds = [], before = "", request_id = "", limit = 50 }) {
  const query = new URLSearchParams({ limit });
  if (request_id) query.set("request_id", request_id);
  else query.set("decision", kinds.join(","));
  if (before) query.set("before", before);
  return call(`v1/decisions?${query}`);
}
