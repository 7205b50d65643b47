import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { createMetrics } from "@tallyhouse/runtime";
import { expect, test } from "vitest";
import { startInsideHealth } from "./health.ts";

const sources = {
  readiness: () => Promise.resolve({ isReady: false, parts: { eventLog: "unavailable" } }),
  metrics: createMetrics(),
};

test("G9 the inside of a deployment reads health and metrics at a port of its own, when there is one", async () => {
  expect(await startInsideHealth({ host: "127.0.0.1", port: undefined }, sources)).toBeNull();
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = holder.address() as AddressInfo;
  holder.close();
  await once(holder, "close");
  const listener = await startInsideHealth({ host: "127.0.0.1", port }, sources);
  const answers = await Promise.all(
    ["/livez", "/readyz", "/metrics"].map((path) => fetch(`http://127.0.0.1:${port}${path}`)),
  );
  expect(answers.map(({ status }) => status)).toEqual([200, 503, 200]);
  expect(await answers[1]?.json()).toEqual({ status: "not ready", parts: { eventLog: "unavailable" } });
  await listener?.close();
});
