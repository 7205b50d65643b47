import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HOUR_MS } from "@tallyhouse/domain";
import { type LocalClickHouse, startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder: string;
let front: LocalClickHouse;
let env: Record<string, string>;
let running: Standalone;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-server-"));
  front = await startClickHouse({ folder: join(folder, "server"), username: "tally", password: "s3cret" });
  env = {
    TALLYHOUSE_DATA: join(folder, "data"),
    TALLYHOUSE_PORT: "0",
    CLICKHOUSE_URL: front.url,
    BOOKING_WINDOW_SECONDS: "5",
    LOG_LEVEL: "silent",
  };
  running = await startStandalone(env);
});
afterAll(async () => {
  await running.stop();
  await front.stop();
  await rm(folder, { recursive: true, force: true });
});

async function post(id: string): Promise<number> {
  const answer = await fetch(`${running.url}/v1/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
    body: JSON.stringify({ id, customer: "acme", type: "llm.request", data: { inputTokens: 3, outputTokens: 1 } }),
  });
  return answer.status;
}

async function total(): Promise<string | undefined> {
  const from = new Date(Date.now() - 24 * HOUR_MS).toISOString();
  const to = new Date(Date.now() + HOUR_MS).toISOString();
  const answer = await fetch(
    `${running.url}/v1/usage?customer=acme&meter=input_tokens&window=total&from=${from}&to=${to}`,
    { headers: { authorization: `Bearer ${running.token}` } },
  );
  if (!answer.ok) return undefined;
  const body = (await answer.json()) as { data: { quantity: string }[] };
  return body.data[0]?.quantity;
}

describe("standalone on ClickHouse over HTTP", () => {
  it("says where it stores, without the password", () => {
    expect(running.ports.adapters["analytics"]).toMatch(/^ClickHouse [\d.]+ at 127\.0\.0\.1:\d+$/);
  });

  it("G1 G2 counts each event once through a SIGKILL of the server, without a restart of its own", async () => {
    const statuses: number[] = [];
    for (let n = 0; n < 20; n += 1) statuses.push(await post(`before-${n}`));
    front.kill();
    for (let n = 0; n < 20; n += 1) statuses.push(await post(`without-${n}`));
    await front.restart();
    for (let n = 0; n < 20; n += 1) statuses.push(await post(`after-${n}`));
    expect(new Set(statuses)).toEqual(new Set([202]));
    await until(async () => (await total()) === "180", { timeoutMs: 30_000, what: "60 events of 3 tokens" });
  });

  it("leaves the folder to one process, though no store inside it holds a lock", async () => {
    await expect(startStandalone(env)).rejects.toMatchObject({
      code: "DATA_FOLDER_IN_USE",
      message: expect.stringContaining(`in use by process ${process.pid}`) as string,
    });
  });

  it("stays with the store it was begun on", async () => {
    await running.stop();
    await expect(startStandalone({ ...env, CLICKHOUSE_URL: "" })).rejects.toMatchObject({ code: "STREAM_MISMATCH" });
    running = await startStandalone(env);
    expect(await total()).toBe("180");
  });
});
