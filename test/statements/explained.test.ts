/**
 * A period that closes while somebody looks on: usage through the gateway, a sealed statement, its explanation down to the usage events,
 * its export, which the stand-alone verifier accepts, and an adjustment after a correction. Needs python3, as the verifier does.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DAY_MS, formatInstant } from "@tallyhouse/domain";
import { addMonths } from "@tallyhouse/plans";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";

const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const VERIFIER = new URL("../../tools/verify-statement.py", import.meta.url).pathname;
const FOLDER = mkdtempSync(join(tmpdir(), "tallyhouse-explained-"));
const ENV = {
  BOOKING_WINDOW_SECONDS: "5",
  CLOSE_LATENESS_SECONDS: "0",
  RERATE_INTERVAL_SECONDS: "5",
  REPORT_INTERVAL_MS: "300",
  LOG_LEVEL: "error",
  TALLYHOUSE_DATA: FOLDER,
  TALLYHOUSE_PORT: "0",
};
const SEAL_TIMEOUT_MS = 120_000;
const EVENTS = 120;

let running: Standalone;

beforeAll(async () => {
  running = await startStandalone(ENV);
});
afterAll(async () => {
  await running.stop();
  rmSync(FOLDER, { recursive: true, force: true });
});

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Run> {
  try {
    const { stdout, stderr } = await promisify(execFile)(file, [...args], { env: { ...process.env, ...env } });
    return { code: 0, stdout, stderr };
  } catch (error) {
    return error as Run;
  }
}

/** The command line against the running standalone; it must succeed. */
async function tallyhouse(...args: readonly string[]): Promise<string> {
  const done = await run(process.execPath, [BIN, ...args], { TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: FOLDER });
  expect(done, args.join(" ")).toMatchObject({ code: 0 });
  return done.stdout;
}

const verify = (...args: readonly string[]): Promise<Run> => run("python3", [VERIFIER, ...args]);

async function get<Body>(path: string): Promise<Body> {
  const answer = await fetch(`${running.url}${path}`, { headers: { authorization: `Bearer ${running.token}` } });
  expect(answer.status, path).toBe(200);
  return (await answer.json()) as Body;
}

interface Invoices {
  readonly data: readonly {
    readonly id: string;
    readonly digest: string;
    readonly total: string;
    readonly adjustments: readonly { readonly id: string; readonly digest: string; readonly difference: string }[];
  }[];
}
const invoices = (): Promise<Invoices> => get<Invoices>("/v1/invoices?customer=acme");

/** A period that ends there: a month, or a year where the month before has no such day. */
function periodBefore(endAt: number): { readonly startAt: number; readonly interval: "month" | "year" } {
  const startAt = addMonths(endAt, -1);
  return addMonths(startAt, 1) === endAt
    ? { startAt, interval: "month" }
    : { startAt: addMonths(endAt, -12), interval: "year" };
}

/** A whole second some seconds ahead. */
const soon = (): number => Math.ceil(Date.now() / 1_000 + 10) * 1_000;

const usage = (number: number, nowAt: number) => ({
  id: `evt-${number}`,
  customer: "acme",
  type: "llm.request",
  // Over the last three weeks of the period.
  time: new Date(nowAt - Math.floor((number * 20 * DAY_MS) / EVENTS)).toISOString(),
  data: { inputTokens: number, outputTokens: 1, model: number % 3 === 0 ? "large" : "small" },
});

/** Usage first, and the plan when all of it is counted: its period ends a moment later, or has just ended where the machine is slow. */
async function openPeriod(): Promise<void> {
  const { interval } = periodBefore(soon());
  const file = join(FOLDER, "plans.yaml");
  writeFileSync(
    file,
    `schema: tallyhouse.plans/1
defaults: {currency: usd, interval: ${interval}}
plans:
  pro:
    price: "49"
    items:
      large: {meter: input_tokens, where: {model: large}, included: "1000", policy: overage, price: {model: graduated, tiers: [{upTo: "500", unit: "0.01"}, {upTo: inf, unit: "0.0075"}]}}
      small: {meter: input_tokens, where: {model: small}, policy: overage, price: {model: package, size: "1000", price: "0.35"}}
      requests: {meter: llm_requests, policy: overage, price: {model: volume, tiers: [{upTo: "100", unit: "0.02"}, {upTo: inf, unit: "0.0125"}]}}
`,
  );
  await tallyhouse("plans", "apply", file, "--reason", "first prices");
  await tallyhouse("customers", "create", "acme", "--name", "Acme Ltd", "--billing", "none");
  const nowAt = Date.now();
  const answer = await fetch(`${running.url}/v1/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
    body: JSON.stringify(Array.from({ length: EVENTS }, (_, number) => usage(number, nowAt))),
  });
  expect(answer.status).toBe(202);
  const span = new URLSearchParams({ from: formatInstant(nowAt - 30 * DAY_MS), to: formatInstant(nowAt + DAY_MS) });
  const counted = `/v1/usage?customer=acme&meter=llm_requests&${span.toString()}`;
  await until(async () => (await get<{ data: { quantity: string }[] }>(counted)).data[0]?.quantity === String(EVENTS), {
    timeoutMs: SEAL_TIMEOUT_MS,
    what: "all usage is counted",
  });
  const { startAt } = periodBefore(soon());
  await tallyhouse("customers", "set-plan", "acme", "pro", "--from", formatInstant(startAt), "--reason", "order 1");
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

test("G8: a closed period is sealed, explained, exported and verified; a later void is an adjustment", async () => {
  await openPeriod();
  await until(async () => (await invoices()).data.length === 1, { timeoutMs: SEAL_TIMEOUT_MS, what: "a statement" });
  const [statement] = (await invoices()).data;
  const id = statement?.id ?? "";
  const numbers = Array.from({ length: EVENTS }, (_, number) => number);
  const large = sum(numbers.filter((number) => number % 3 === 0));

  const shown = await tallyhouse("explain", id);
  expect(shown).toContain(`used ${large}`);
  expect(shown).toContain(statement?.digest);
  const windows = await get<{ data: { start: string; quantity: string }[]; quantity: string }>(
    `/v1/invoices/${id}/explain?line=large`,
  );
  expect(windows.quantity).toBe(String(large));
  expect(sum(windows.data.map(({ quantity }) => Number(quantity)))).toBe(large);
  const last = windows.data.at(-1)?.start ?? "";
  const events = await get<{ data: { id: string; value: string }[] }>(
    `/v1/invoices/${id}/explain?line=large&window=${last}`,
  );
  expect(events.data).toContainEqual(expect.objectContaining({ id: "evt-0", value: "0" }));
  const csv = await tallyhouse("explain", id, "--line", "small", "--window", "all", "--csv");
  expect(csv.trimEnd().split("\n")).toHaveLength(1 + EVENTS - EVENTS / 3);

  const file = join(FOLDER, "statement.jsonl");
  expect(await tallyhouse("explain", id, "--export", file)).toContain(`${2 * EVENTS} usage events`);
  const verified = await verify(file, "--digest", statement?.digest ?? "");
  expect(verified.stdout).toContain(
    `VERIFIED ${id}: 4 lines, ${2 * EVENTS} usage events, total ${statement?.total} usd`,
  );
  await expectRefusals(file);

  await tallyhouse("events", "void", "api", "evt-99", "--customer", "acme", "--reason", "sent by a test of theirs");
  await until(async () => (await invoices()).data[0]?.adjustments.length === 1, {
    timeoutMs: SEAL_TIMEOUT_MS,
    what: "an adjustment",
  });
  const [adjustment] = (await invoices()).data[0]?.adjustments ?? [];
  expect((await invoices()).data[0]).toMatchObject({ id, digest: statement?.digest, total: statement?.total });
  expect(await tallyhouse("explain", adjustment?.id ?? "")).toContain("(-99 units)");
  const adjusted = join(FOLDER, "adjustment.jsonl");
  await tallyhouse("explain", adjustment?.id ?? "", "--export", adjusted);
  const digests = join(FOLDER, "digests");
  writeFileSync(digests, `${statement?.digest} ${id}\n${adjustment?.digest} ${adjustment?.id}\n`);
  const again = await verify(adjusted, "--previous", file, "--digests", digests);
  expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining(`VERIFIED ${adjustment?.id}`) });
  // What was said before the void is still what is said of the statement.
  await tallyhouse("explain", id, "--export", join(FOLDER, "again.jsonl"));
  expect(readFileSync(join(FOLDER, "again.jsonl"), "utf8")).toBe(readFileSync(file, "utf8"));
}, 300_000);

/** A changed usage event, a file that was cut off, no export, another digest. */
async function expectRefusals(file: string): Promise<void> {
  const text = readFileSync(file, "utf8");
  const tampered = join(FOLDER, "tampered.jsonl");
  writeFileSync(tampered, text.replace('"17"]', '"18"]'));
  const changed = await verify(tampered);
  expect(changed.code).toBe(1);
  expect(changed.stdout).toMatch(/total of small, quantity: found "\d+", must be "\d+"/);
  writeFileSync(tampered, text.slice(0, -10));
  expect(await verify(tampered)).toMatchObject({ code: 1, stdout: expect.stringContaining("cut off") });
  writeFileSync(tampered, "{}\n");
  expect(await verify(tampered)).toMatchObject({ code: 2, stderr: expect.stringContaining("no export") });
  const held = await verify(file, "--digest", "0".repeat(64));
  expect(held).toMatchObject({ code: 1, stdout: expect.stringContaining("digest, as --digest holds it") });
}
