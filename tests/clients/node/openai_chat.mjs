// What a user of the official OpenAI SDK does, against the gateway at BASE_URL with API_KEY and MODEL. Prints one JSON object a case.
//
// MODEL must answer in text; TOOL_MODEL, if given, is asked with a tool and must call it. EMBEDDING_MODEL, if given, must embed.
import OpenAI from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model, TOOL_MODEL: toolModel, EMBEDDING_MODEL: embeddingModel } = process.env;
const messages = [{ role: "user", content: "Say hello." }];
const tools = [
  {
    type: "function",
    function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
  },
];

const connect = (key = apiKey) => new OpenAI({ baseURL, apiKey: key, maxRetries: 0, timeout: 30_000 });
const report = (name, result) => console.log(JSON.stringify({ case: name, ...result }));

async function unary() {
  const answer = await connect().chat.completions.create({ model, messages, max_tokens: 16 });
  const [choice] = answer.choices;
  return { object: answer.object, text: choice.message.content, finish_reason: choice.finish_reason, usage: answer.usage };
}

async function rawResponse() {
  const { data, response, request_id } = await connect()
    .chat.completions.create({ model, messages, max_tokens: 16 })
    .withResponse();
  return { status: response.status, request_id, provider: response.headers.get("x-twinspan-provider"), text: data.choices[0].message.content };
}

async function stream() {
  const chunks = await connect().chat.completions.create({
    model,
    messages,
    max_tokens: 16,
    stream: true,
    stream_options: { include_usage: true },
  });
  const result = { text: "", chunks: 0, finish_reason: null, usage: null };
  for await (const chunk of chunks) {
    result.chunks += 1;
    result.text += chunk.choices[0]?.delta?.content ?? "";
    result.finish_reason = chunk.choices[0]?.finish_reason ?? result.finish_reason;
    result.usage = chunk.usage ?? result.usage;
  }
  return result;
}

async function toolCall() {
  const answer = await connect().chat.completions.create({ model: toolModel, messages, tools });
  const [choice] = answer.choices;
  return { finish_reason: choice.finish_reason, tool_calls: choice.message.tool_calls };
}

// The SDK's own helper, which puts the pieces of calls together again.
async function streamedToolCall() {
  const choice = (await connect().chat.completions.stream({ model: toolModel, messages, tools }).finalChatCompletion()).choices[0];
  const calls = choice.message.tool_calls.map(({ id, type, function: { name, arguments: text } }) => ({
    id,
    type,
    function: { name, arguments: text },
  }));
  return { finish_reason: choice.finish_reason, tool_calls: calls };
}

async function list() {
  const ids = [];
  for await (const entry of connect().models.list()) ids.push(entry.id);
  return { ids, one: (await connect().models.retrieve(model)).id };
}

async function embeddings() {
  const input = ["A kitten rests on a rug.", "The cat sat on the mat."];
  const answer = await connect().embeddings.create({ model: embeddingModel, input });
  return { sizes: answer.data.map(({ embedding }) => embedding.length), usage: answer.usage };
}

async function failure(request) {
  try {
    await request();
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, type: error.type, request_id: error.requestID };
  }
  return { class: null };
}

report("unary", await unary());
report("raw_response", await rawResponse());
report("stream", await stream());
if (toolModel) {
  report("tool_call", await toolCall());
  report("streamed_tool_call", await streamedToolCall());
}
if (embeddingModel) report("embeddings", await embeddings());
report("models", await list());
report("wrong_key", await failure(() => connect("ts-wrong-key-wrong-key").chat.completions.create({ model, messages })));
report("wrong_model", await failure(() => connect().chat.completions.create({ model: "no-such-model", messages })));
report("wrong_model_streamed", await failure(() => connect().chat.completions.create({ model: "no-such-model", messages, stream: true })));
report("bad_request", await failure(() => connect().chat.completions.create({ model, messages: "not a list" })));
