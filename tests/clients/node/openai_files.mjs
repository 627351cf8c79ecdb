// What a user of the official OpenAI SDK does with files and batches, against the gateway at BASE_URL with API_KEY and MODEL. Prints
// one JSON object a case.
import { createReadStream } from "node:fs";
import OpenAI, { toFile } from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model, FILE: path } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });
const report = (name, result) => console.log(JSON.stringify({ case: name, ...result }));

async function files() {
  const file = await client.files.create({ file: createReadStream(path), purpose: "user_data" });
  const content = await (await client.files.content(file.id)).text();
  const listed = [];
  for await (const one of client.files.list({ limit: 1, purpose: "user_data" })) listed.push(one.id);
  const { deleted } = await client.files.delete(file.id);
  return { filename: file.filename, bytes: file.bytes, content: content.length, listed: listed.includes(file.id), deleted };
}

async function batch() {
  const url = "/v1/chat/completions";
  const body = { model, max_tokens: 8, messages: [{ role: "user", content: "Say hello." }] };
  const lines = ["a", "b"].map((custom_id) => JSON.stringify({ custom_id, method: "POST", url, body })).join("\n");
  const input = await client.files.create({ file: await toFile(Buffer.from(lines), "lines.jsonl"), purpose: "batch" });
  let batch = await client.batches.create({ input_file_id: input.id, endpoint: url, completion_window: "24h" });
  while (!["completed", "failed"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    batch = await client.batches.retrieve(batch.id);
  }
  const output = await (await client.files.content(batch.output_file_id)).text();
  const answered = output.trim().split("\n").map((line) => JSON.parse(line).custom_id);
  return { status: batch.status, counts: batch.request_counts, answered: answered.sort() };
}

async function missing() {
  try {
    await client.files.retrieve("file-none");
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code };
  }
}

report("files", await files());
report("batch", await batch());
report("missing", await missing());
