// node client.mjs BASE_URL: what OpenAI's client for Node makes of a gateway, as one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const said = (text) => [{ role: "user", content: text }];
const found = {};

async function whole(text) {
  const reply = await client.chat.completions.create({ model: "m", messages: said(text) });
  return [reply.choices[0].finish_reason, reply.choices[0].message.content];
}

async function streamed(text) {
  let finish = null;
  let content = "";
  for await (const chunk of await client.chat.completions.create({ model: "m", messages: said(text), stream: true })) {
    content += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  return [finish, content];
}

async function helper(text) {
  const stream = client.chat.completions.stream({ model: "m", messages: said(text) });
  const reply = await stream.finalChatCompletion();
  return [reply.choices[0].finish_reason, reply.choices[0].message.content];
}

async function response(text) {
  const reply = await client.responses.create({ model: "m", input: text });
  return [reply.incomplete_details?.reason ?? reply.status, reply.output[0].content[0].refusal ?? reply.output_text];
}

async function responseStream(text) {
  let last = null;
  let content = "";
  for await (const event of await client.responses.create({ model: "m", input: text, stream: true })) {
    if (event.type === "response.output_text.delta" || event.type === "response.refusal.delta") content += event.delta;
    last = event;
  }
  return [last.response.incomplete_details?.reason ?? last.response.status, content];
}

const ways = { chat: whole, "chat, streamed": streamed, "chat, .stream()": helper };
ways.responses = response;
ways["responses, streamed"] = responseStream;
for (const [name, way] of Object.entries(ways)) {
  found[name] = {};
  for (const text of ["Hello", "MARK-HARM"]) {
    try {
      found[name][text] = await way(text);
    } catch (error) {
      found[name][text] = [error.constructor.name, String(error.message)];
    }
  }
}
console.log(JSON.stringify(found));
