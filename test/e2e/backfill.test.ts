/** Usage first, the meter later: totals as if it had been there from the start. And the rest of a meter's life, over the command line. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { HOUR_MS } from "@tallyhouse/domain";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";

const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-backfill-"));
const file = join(folder, "meters.yaml");
const CUSTOMERS = ["acme", "globex", "initech"];
const AGGREGATIONS = ["sum", "count", "min", "max", "latest", "unique_count"] as const;
const BEFORE = 240;
const AFTER = 60;
let running: Standalone;
/** Whole hours around all usage, so that every window is whole. */
let span: { from: string; to: string };

/** A meters file with one meter per aggregation, under this prefix. */
function meters(prefix: string): string {
  const lines = AGGREGATIONS.map((aggregation) => {
    const value = aggregation === "count" ? "" : ` value: /${aggregation === "unique_count" ? "user" : "tokens"},`;
    return `  - { key: ${prefix}_${aggregation}, eventType: job.done, aggregation: ${aggregation},${value} where: [{ path: /ok, equals: true }], dimensions: { model: /model }, from: 2000-01-01T00:00:00Z }`;
  });
  return `schema: tallyhouse.meters/1\nmeters:\n${lines.join("\n")}\n`;
}

async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, TALLYHOUSE_URL: running.url, TALLYHOUSE_TOKEN: running.token };
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [BIN, ...args], { env });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, stdout, stderr };
  }
}

async function applyFile(text: string): Promise<string> {
  writeFileSync(file, text);
  const { code, stdout, stderr } = await cli("meters", "apply", file);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}

const call = (path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`${running.url}${path}`, {
    ...init,
    headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
  });

/** The n-th usage event: spread over two days, with values that a float sum would get wrong. */
function nth(n: number, nowAt: number): object {
  return {
    id: `job-${n}`,
    customer: CUSTOMERS[n % 3],
    type: "job.done",
    time: new Date(nowAt - (n % 48) * HOUR_MS - n).toISOString(),
    data: { tokens: `${n}.1`, ok: n % 10 !== 0, user: `u${n % 17}`, model: n % 2 === 0 ? "small" : "large" },
  };
}

async function send(from: number, to: number, nowAt: number): Promise<void> {
  const events = Array.from({ length: to - from }, (_, n) => nth(from + n, nowAt));
  expect((await call("/v1/events", { method: "POST", body: JSON.stringify(events) })).status).toBe(202);
}

interface Answer {
  readonly backfilling?: true;
  readonly data: readonly { readonly start: string; readonly group: object; readonly quantity: string }[];
}

async function usage(meter: string, more: string): Promise<Answer["data"]> {
  const answers = await Promise.all(
    CUSTOMERS.map(async (customer) => {
      const query = new URLSearchParams({ customer, meter, ...span });
      const answer = await call(`/v1/usage?${query.toString()}&${more}`);
      expect(answer.status).toBe(200);
      return (await answer.json()) as Answer;
    }),
  );
  return answers.flatMap(({ data }) => data);
}

async function untilCounted(meter: string, events: number): Promise<void> {
  await until(
    async () => (await usage(meter, "window=total")).reduce((sum, row) => sum + Number(row.quantity), 0) === events,
    { timeoutMs: 90_000, what: `${events} usage events in ${meter}` },
  );
}

beforeAll(async () => {
  running = await startStandalone({
    TALLYHOUSE_DATA: join(folder, "data"),
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_METERS: "none",
    LOG_PARTITIONS: "4",
    BOOKING_WINDOW_SECONDS: "5",
    LOG_LEVEL: "error",
  });
});
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("G1 G3 a meter that comes after its usage says what one that was there from the start says, for every aggregation", async () => {
  const nowAt = Date.now();
  const hour = Math.floor(nowAt / HOUR_MS) * HOUR_MS;
  span = { from: new Date(hour - 60 * HOUR_MS).toISOString(), to: new Date(hour + HOUR_MS).toISOString() };
  await applyFile(meters("early"));
  await send(0, BEFORE, nowAt);
  await untilCounted("early_count", BEFORE * 0.9);

  const said = await applyFile(meters("late"));
  expect(said).toContain("new          late_sum v1 from 2000-01-01T00:00:00Z");
  // Some of what follows is late usage of windows that the backfill has just counted.
  await send(BEFORE, BEFORE + AFTER, nowAt);
  for (const prefix of ["early", "late"]) await untilCounted(`${prefix}_count`, (BEFORE + AFTER) * 0.9);
  for (const aggregation of AGGREGATIONS) {
    for (const more of ["window=total", "window=hour", "window=day&groupBy=model"]) {
      const late = await usage(`late_${aggregation}`, more);
      expect(late.length).toBeGreaterThan(0);
      expect([aggregation, more, late]).toEqual([aggregation, more, await usage(`early_${aggregation}`, more)]);
    }
  }
  const lanes = await running.ports.analytics.select<{ lane: number; meters: string }>(
    "SELECT lane, arrayStringConcat(arraySort(groupUniqArray(splitByChar('_', meter)[1])), ',') AS meters FROM rollup GROUP BY lane ORDER BY lane",
  );
  expect(lanes).toEqual([
    { lane: 0, meters: "early,late" },
    { lane: 1, meters: "late" },
  ]);
  // Every partition of every version says that it is done, those without usage too.
  const [done] = await running.ports.analytics.select<{ done: string; activated: string }>(
    `SELECT toString((SELECT count() FROM backfills FINAL)) AS done,
       toString((SELECT count() FROM control_records FINAL WHERE kind = 'meter.activate')) AS activated`,
  );
  expect(done?.done).toBe(done?.activated);
}, 240_000);

test("G3 meters check --against says what the usage API says, for meters that count and for one that nobody applied", async () => {
  const check = await (async () => {
    writeFileSync(file, meters("early"));
    const { code, stdout, stderr } = await cli("meters", "check", file, "--against", `${span.from}..${span.to}`);
    expect([code, stderr]).toEqual([0, ""]);
    return new Map(
      stdout
        .trim()
        .split("\n")
        .map((line) => line.split("\t"))
        .map(([meter, customer, ...figures]) => [`${meter}/${customer}`, figures] as const),
    );
  })();
  for (const aggregation of AGGREGATIONS) {
    for (const [index, row] of (await usage(`early_${aggregation}`, "window=total")).entries()) {
      const [quantity, matched, skipped, absent, unreadable] =
        check.get(`early_${aggregation}/${CUSTOMERS[index]}`) ?? [];
      expect([aggregation, quantity]).toEqual([aggregation, row.quantity]);
      expect([matched, skipped, absent, unreadable]).toEqual(["90", "10", "0", "0"]);
    }
  }
  writeFileSync(
    file,
    "schema: tallyhouse.meters/1\nmeters:\n  - { key: odd, eventType: job.done, aggregation: sum, value: /user }\n",
  );
  const odd = await cli("meters", "check", file, "--against", `${span.from}..${span.to}`);
  expect(odd.stdout).toContain("odd\t(all: 0)\t0\t0\t0\t0\t300\n");
  expect(odd.stderr).toMatch(/odd: unreadable value of acme, source api, id job-\d+/);
  const wrong = await cli("meters", "check", file, "--against", "yesterday");
  expect([wrong.code, wrong.stderr]).toMatchObject([2, expect.stringContaining("takes two instants") as string]);
}, 120_000);

test("G3 a new version ends the old one, an end takes effect in every partition, and what is ended does not come back", async () => {
  const changed = meters("late").replace("key: late_sum, eventType: job.done", "key: late_sum, eventType: job.over");
  writeFileSync(file, changed);
  const diff = await cli("meters", "diff", file);
  expect(diff.stdout).toMatch(
    /new-version {2}late_sum v2 \(eventType\) from 2000-01-01T00:00:00Z\nend {10}late_sum v1 until /,
  );
  const undated = changed.replace(/(late_sum.*), from: [^ ]+ }/, "$1 }");
  const said = await applyFile(undated);
  const [, from] = /late_sum v2 \(eventType\) from (\S+)\n/.exec(said) ?? [];
  expect(said).toContain(`end          late_sum v1 until ${from}\n`);
  expect(new Date(from ?? 0).getTime()).toBeGreaterThan(Date.now() + 300_000);

  const ended = await cli("meters", "end", "late_count");
  expect(ended.stdout).toMatch(/^end {10}late_count v1 until \S+\n$/);
  interface Listed {
    readonly key: string;
    readonly version: number;
    readonly end: { readonly state: string } | null;
  }
  const isStored = async (): Promise<boolean> => {
    const { meters: all } = (await (await call("/admin/v1/meters")).json()) as { meters: Listed[] };
    return all.filter(({ end }) => end?.state === "stored").length === 2;
  };
  await until(isStored, { timeoutMs: 30_000, what: "both ends are stored" });
  writeFileSync(file, undated);
  const again = await cli("meters", "apply", file);
  expect([again.code, again.stderr]).toMatchObject([1, expect.stringContaining("was ended") as string]);
  const early = await cli("meters", "end", "late_max", "--until", "2026-01-01T00:00:00Z");
  expect([early.code, early.stderr]).toMatchObject([1, expect.stringContaining("METER_END_REFUSED") as string]);
}, 120_000);
