/** What the README shows, on separate processes: every promise of a first hour, through both gateways. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { HOUR_MS } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readTruth } from "../support/recount.ts";
import { serversOfEnvironment, startWorld, type World } from "./world.ts";

const servers = serversOfEnvironment();
let world: World;

beforeAll(async () => {
  const metersFile = readFileSync(new URL("../../examples/meters.yaml", import.meta.url), "utf8");
  world = await startWorld({ name: "readme", servers, metersFile });
}, 120_000);
afterAll(async () => {
  await world.end();
}, 60_000);

const call = (url: string, init: RequestInit = {}): Promise<Response> =>
  fetch(url, { ...init, headers: { authorization: `Bearer ${world.token}`, "content-type": "application/json" } });
const post = async (gateway: string, event: object): Promise<number> =>
  (await call(`${gateway}/v1/events`, { method: "POST", body: JSON.stringify(event) })).status;

async function total(gateway: string, customer: string): Promise<string | undefined> {
  const from = new Date(Date.now() - 24 * HOUR_MS).toISOString();
  const to = new Date(Date.now() + HOUR_MS).toISOString();
  const range = `from=${from}&to=${to}`;
  const answer = await call(`${gateway}/v1/usage?customer=${customer}&meter=input_tokens&window=total&${range}`);
  return ((await answer.json()) as { data: { quantity: string }[] }).data[0]?.quantity;
}

test("G1 G2 G7 an event is visible through both gateways, and sent to each of them it counts once", async () => {
  const event = { id: "first-1", customer: "acme", type: "llm.request", data: { inputTokens: 374, outputTokens: 44 } };
  for (const gateway of world.gatewayUrls) expect(await post(gateway, event)).toBe(202);
  expect(await post(world.gatewayUrls[0], { ...event, id: "first-2", data: { inputTokens: 1 } })).toBe(202);
  for (const gateway of world.gatewayUrls) await until(async () => (await total(gateway, "acme")) === "375");
  for (const gateway of world.gatewayUrls) expect(await (await fetch(`${gateway}/`)).text()).toContain("acme");
});

test("G5 an event of two hours ago is at the emulator", async () => {
  const time = new Date(Date.now() - 2 * HOUR_MS).toISOString();
  const data = { inputTokens: 1_000, outputTokens: 7 };
  expect(await post(world.gatewayUrls[1], { id: "earlier-1", customer: "acme", type: "llm.request", time, data })).toBe(
    202,
  );
  const isCounted = (sent: { event_name: string; value: string; fate: string }): boolean =>
    sent.event_name === "th_input_tokens_v1" && sent.value === "1000" && sent.fate === "counted";
  await until(async () => (await readTruth(world.emulatorUrl)).events.some(isCounted), { timeoutMs: 30_000 });
});

test("migrate, topic and token add may run at every deployment", async () => {
  const lines = [
    await world.command(["migrate"]),
    await world.command(["topic"]),
    await world.command(["token", "add"]),
  ];
  expect(lines.join("")).toMatch(
    /^PostgreSQL is up to date \(0 applied\)\.\nClickHouse is up to date \(0 applied\)\.\nTopic \S+ is there, with 8 partitions\.\nThe token is known\.\n$/,
  );
});

test("G9 every process answers /livez, /readyz with its parts, and /metrics", async () => {
  const parts: Record<string, readonly string[]> = {};
  for (const [name, { settings }] of Object.entries(world.processes)) {
    if (name === "emulator") continue;
    expect((await fetch(`${settings.url}/livez`)).status).toBe(200);
    const readiness = (await (await fetch(`${settings.url}/readyz`)).json()) as { parts: Record<string, string> };
    parts[name] = Object.keys(readiness.parts).sort();
    expect(await (await fetch(`${settings.url}/metrics`)).text()).toContain(`tallyhouse_${name.replace(/\d$/, "")}_`);
  }
  const gateway = ["console", "controlStore", "eventLog"];
  const aggregator = ["aggregator", "analyticsStore", "eventLog"];
  expect(parts).toEqual({
    gateway1: gateway,
    gateway2: gateway,
    aggregator1: aggregator,
    aggregator2: aggregator,
    reporter: ["analyticsStore", "controlStore", "reporter", "stripe live"],
    console: ["analyticsStore", "controlStore", "eventLog", "outbox"],
  });
});

test("the aggregators share the partitions", async () => {
  const owned = await Promise.all(
    (["aggregator1", "aggregator2"] as const).map(async (name) => {
      const answer = await fetch(`${world.processes[name].settings.url}/readyz`);
      return ((await answer.json()) as { figures: { partitions: number } }).figures.partitions;
    }),
  );
  expect(owned).toEqual([4, 4]);
});

test("a second process on a port, and wrong settings, end with code 1 and say why", async () => {
  const { settings } = world.processes.reporter;
  const start = (env: NodeJS.ProcessEnv) =>
    spawnSync(process.execPath, [settings.program], { env, encoding: "utf8", timeout: 30_000 });
  const taken = start(settings.env);
  expect(taken.status).toBe(1);
  expect(taken.stderr).toMatch(/port \d+ on 127\.0\.0\.1 is taken.*REPORTER_PORT/);
  const wrong = start({ ...settings.env, CLICKHOUSE_URL: "somewhere", LOG_PARTITIONS: "0" });
  expect(wrong.status).toBe(1);
  expect(wrong.stderr).toMatch(/LOG_PARTITIONS.*CLICKHOUSE_URL|CLICKHOUSE_URL.*LOG_PARTITIONS/);
});

test("every process stops within its bound when asked, with code 0", { timeout: 60_000 }, async () => {
  const stopped = await Promise.all(
    Object.entries(world.processes).map(async ([name, each]) => [name, await each.stop()] as const),
  );
  expect(stopped.filter(([, code]) => code !== 0)).toEqual([]);
  const restarts = Object.entries(world.processes).filter(([, { unexpectedEnds }]) => unexpectedEnds > 0);
  expect(restarts.map(([name]) => name)).toEqual([]);
});
