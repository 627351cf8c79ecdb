// What a service in another language does: calls the core at TARGET with API_KEY and MODEL, from the protos alone. Prints one JSON
// object a case.
//
// PROTO_PATH lists the directories that hold `twinspan/v1` and `google/api`, separated as in PATH.
import { delimiter } from "node:path";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { TARGET: target, API_KEY: apiKey, MODEL: model, PROTO_PATH: protoPath } = process.env;

const definition = loader.loadSync(["twinspan/v1/chat.proto"], {
  includeDirs: protoPath.split(delimiter),
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const { ChatService } = grpc.loadPackageDefinition(definition).twinspan.v1;
const client = new ChatService(target, grpc.credentials.createInsecure());
const report = (name, result) => console.log(JSON.stringify({ case: name, ...result }));

const ask = (name = model) => ({
  chat: { model: name, messages: [{ role: "ROLE_USER", text: "Say hello." }], max_tokens: 16 },
});

function metadata(key = apiKey) {
  const result = new grpc.Metadata();
  result.set("authorization", `Bearer ${key}`);
  return result;
}

const options = () => ({ deadline: Date.now() + 30_000 });
const facts = (sent) => Object.fromEntries(Object.entries(sent.getMap()).filter(([key]) => key.startsWith("x-")));

function complete(name, key) {
  return new Promise((resolve) => {
    let result;
    const call = client.Complete(ask(name), metadata(key), options(), (error, answer) => {
      if (error) {
        result = { code: grpc.status[error.code], details: error.details };
        return;
      }
      const [choice] = answer.choices;
      result = { code: "OK", text: choice.message.text, finish_reason: choice.finish_reason, usage: answer.usage };
    });
    // The status, and with it the trailing metadata, comes after the answer.
    call.on("status", (status) => resolve({ ...result, trailers: facts(status.metadata) }));
  });
}

async function stream(name, key) {
  const call = client.Stream(ask(name), metadata(key), options());
  const result = { code: "OK", text: "", events: 0, finish_reason: null, usage: null, trailers: {} };
  call.on("status", (status) => {
    result.trailers = facts(status.metadata);
  });
  try {
    for await (const { events } of call) {
      for (const { text, chunk } of events) {
        result.events += 1;
        result.text += text ?? "";
        for (const choice of chunk?.choices ?? []) {
          result.text += choice.text ?? "";
          if (choice.finish_reason && choice.finish_reason !== "FINISH_REASON_UNSPECIFIED") result.finish_reason = choice.finish_reason;
        }
        result.usage = chunk?.usage ?? result.usage;
      }
    }
  } catch (error) {
    return { code: grpc.status[error.code], details: error.details, trailers: result.trailers };
  }
  return result;
}

report("unary", await complete());
report("stream", await stream());
report("wrong_key", await complete(model, "ts-wrong-key-wrong-key"));
report("wrong_model", await complete("no-such-model"));
report("wrong_model_streamed", await stream("no-such-model"));
client.close();
