import { once } from "node:events";
import { createServer } from "node:net";
import { describe, expect, test } from "vitest";
import { pause } from "./clock.ts";
import { answerHealth, readinessOf, startHealthListener } from "./health.ts";
import { Counter, createMetrics } from "./metrics.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("readinessOf", () => {
  test("is ready when every state is ok and every probe answers", async () => {
    const readiness = await readinessOf({
      states: { fold: "ok" },
      probes: { log: () => Promise.resolve(), store: () => Promise.resolve([1]) },
      figures: () => ({ lagRecords: 3 }),
    });
    expect(readiness).toEqual({
      isReady: true,
      parts: { fold: "ok", log: "ok", store: "ok" },
      figures: { lagRecords: 3 },
    });
  });

  test("G9 names what is stuck, what refuses and what does not answer, each beside the others", async () => {
    const asked: AbortSignal[] = [];
    const readiness = await readinessOf({
      states: { fold: "stuck: partitions 3" },
      probes: {
        log: () => Promise.reject(new Error("secret-host refused")),
        store: (signal) => {
          asked.push(signal);
          return pause(60_000, signal);
        },
        other: () => Promise.resolve(),
      },
      timeoutMs: 20,
    });
    expect(readiness).toEqual({
      isReady: false,
      parts: { fold: "stuck: partitions 3", log: "unavailable", store: "does not answer", other: "ok" },
    });
    expect(asked.map(({ aborted }) => aborted)).toEqual([true]);
  });
});

describe("the health listener", () => {
  test("answers the three paths and nothing else, and closes", async () => {
    const metrics = createMetrics();
    new Counter({ name: "tallyhouse_test_total", help: "of this test", registers: [metrics] }).inc(2);
    let isReady = true;
    const readiness = () => Promise.resolve({ isReady, parts: { fold: isReady ? "ok" : "stuck" } });
    const port = await freePort();
    const listener = await startHealthListener({ host: "127.0.0.1", port }, { readiness, metrics });
    const get = async (path: string) => {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`);
      return { status: answer.status, body: await answer.text() };
    };
    expect(await get("/livez")).toEqual({ status: 200, body: '{"status":"ok"}' });
    expect(await get("/readyz?x")).toEqual({ status: 200, body: '{"status":"ready","parts":{"fold":"ok"}}' });
    isReady = false;
    expect(await get("/readyz")).toEqual({ status: 503, body: '{"status":"not ready","parts":{"fold":"stuck"}}' });
    expect((await get("/metrics")).body).toContain("tallyhouse_test_total 2");
    expect((await get("/admin")).status).toBe(404);
    await listener.close();
    await listener.close();
    await expect(get("/livez")).rejects.toThrow("fetch failed");
  });

  test("metrics that cannot be read are a 500 and not a crash", async () => {
    const metrics = createMetrics();
    metrics.metrics = () => Promise.reject(new Error("broken"));
    await expect(answerHealth("/metrics", { metrics, readiness: () => readinessOf({ probes: {} }) })).rejects.toThrow(
      "broken",
    );
  });
});
