// A provider that was not written for this suite: aimock, on a free port. Prints its address, and runs until its standard input ends.
import { LLMock } from "@copilotkit/aimock";

const mock = new LLMock({ host: "127.0.0.1", port: 0 });
mock.onMessage("Say hello.", { content: "Hello from aimock." });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", async () => {
  await mock.stop();
  process.exit(0);
});
