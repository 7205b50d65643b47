/** docs/runbooks/log-replaced.md as an operator follows it: the log is lost, a new stream goes on; then one of more partitions. */
import { mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HOUR_MS } from "@tallyhouse/domain";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterEach, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "tallyhouse-new-stream-"));
const ENV = {
  BOOKING_WINDOW_SECONDS: "5",
  LOG_PARTITIONS: "4",
  LOG_LEVEL: "silent",
  TALLYHOUSE_DATA: folder,
  TALLYHOUSE_PORT: "0",
};
let running: Standalone | undefined;

afterEach(async () => {
  await running?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function start(env: Record<string, string> = {}): Promise<Standalone> {
  running = await startStandalone({ ...ENV, ...env });
  return running;
}

function call({ url, token }: Standalone, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  return fetch(`${url}${path}`, { ...init, headers });
}

async function send(to: Standalone, from: number, end: number): Promise<void> {
  for (let n = from; n < end; n += 1) {
    const event = {
      id: `event-${n}`,
      customer: "cust-1",
      type: "llm.request",
      data: { inputTokens: 1, model: "small" },
    };
    expect((await call(to, "/v1/events", { method: "POST", body: JSON.stringify(event) })).status).toBe(202);
  }
}

async function total(of: Standalone): Promise<unknown> {
  const from = new Date(Date.now() - 24 * HOUR_MS).toISOString();
  const to = new Date(Date.now() + HOUR_MS).toISOString();
  const answer = await call(of, `/v1/usage?customer=cust-1&meter=input_tokens&window=total&from=${from}&to=${to}`);
  return ((await answer.json()) as { data?: { quantity: string }[] }).data?.[0]?.quantity;
}

test("G1 G2 a lost log: the start halts; named as a lost predecessor, nothing counts twice and usage goes on, twice as wide at last", async () => {
  const first = await start();
  await send(first, 0, 12);
  await until(async () => (await total(first)) === "12", { timeoutMs: 30_000, what: "all of it is counted" });
  await first.stop();

  renameSync(join(folder, "log"), join(folder, "log.lost"));
  const halting = await start();
  expect(await halting.done).toBe(1);

  renameSync(join(folder, "log"), join(folder, "log.halted"));
  await expect(start({ STREAM_ID: "2" })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  const second = await start({ STREAM_ID: "2", STREAM_PREDECESSORS: "1:4:lost" });
  // What a caller does not know to be counted is sent again.
  await send(second, 6, 15);
  await until(async () => (await total(second)) === "15", { timeoutMs: 30_000, what: "only the new usage is added" });
  await second.stop();

  const again = await start({ STREAM_ID: "2", STREAM_PREDECESSORS: "1:4:lost" });
  await send(again, 0, 16);
  await until(async () => (await total(again)) === "16", { timeoutMs: 30_000, what: "after a restart, too" });

  // And on to more partitions, without loss.
  const close = async (): Promise<number> =>
    (await call(again, "/admin/v1/stream/close", { method: "POST", body: JSON.stringify({ stream: 2 }) })).status;
  await until(async () => (await close()) === 200, { timeoutMs: 30_000, what: "the stream is closed" });
  await again.stop();
  renameSync(join(folder, "log"), join(folder, "log.closed"));
  const wider = { STREAM_ID: "3", STREAM_PREDECESSORS: "1:4:lost,2:4", LOG_PARTITIONS: "8" };
  const third = await start(wider);
  await send(third, 0, 20);
  await until(async () => (await total(third)) === "20", { timeoutMs: 30_000, what: "three streams are one total" });
}, 120_000);
