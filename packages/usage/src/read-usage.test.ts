import { type AnalyticsStore, formatQuantity, HOUR_MS, MINUTE_MS, type MeterVersion } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PAGE_ROWS_MAX, visitCountedUsage } from "./counted-events.ts";
import { readDefinitions } from "./meter-definitions.ts";
import type { UsageQuestion } from "./question.ts";
import { readUsageGroups } from "./read-usage.ts";
import { HASHES_PER_QUERY_MAX, selectRollups } from "./rollup-query.ts";
import { instant, openTestAnalytics, TestLog, type TestUsage } from "./test-log.ts";
import { readWatermark } from "./watermark.ts";
import { UTC } from "./zone.ts";

const DAY = instant("2026-11-20T00:00:00Z");
const RULES = {
  sum: {},
  count: { aggregation: "count", value: undefined },
  max: { aggregation: "max" },
  latest: { aggregation: "latest" },
  unique: { aggregation: "unique_count", value: "/user" },
} as const;

let analytics: AnalyticsStore;
let close: () => Promise<void>;
let streams = 0;

beforeAll(async () => ({ store: analytics, close } = await openTestAnalytics()));
afterAll(() => close());

/** A log with one partition, and meters of its own. */
function newLog(): { log: TestLog; meters: Readonly<Record<keyof typeof RULES, MeterVersion>> } {
  streams += 1;
  const log = new TestLog(analytics, { streamId: streams, partitionCount: 1, bookingWindowSeconds: 900 });
  const meters = Object.entries(RULES).map(([name, rule]) => [
    name,
    meterVersion({
      meter: `${name}_${streams}`,
      rule: { value: "/v", dimensions: { region: "/region" }, ...rule } as never,
    }),
  ]);
  return { log, meters: Object.fromEntries(meters) as never };
}

const usage = (occurredAt: number, data: TestUsage["data"] = { v: 1 }): { kind: "usage"; usage: TestUsage } => ({
  kind: "usage",
  usage: { mode: "live", customer: `c${streams}`, occurredAt, data },
});

async function question(
  log: TestLog,
  version: MeterVersion,
  more: Partial<UsageQuestion> = {},
): Promise<UsageQuestion> {
  const [definition] = await readDefinitions(analytics, log.stream, { mode: "live", meter: version.meter });
  if (definition === undefined) throw new Error("no definition");
  return {
    ...{ mode: "live", customer: `c${streams}`, definition, groupBy: [], fromAt: DAY, toAt: DAY + 24 * HOUR_MS },
    ...{ window: "total", zone: UTC, cutAt: null, watermarkAt: null, rowsMax: 100, eventsMax: 100_000, ...more },
  };
}

async function quantities(log: TestLog, version: MeterVersion, more: Partial<UsageQuestion> = {}): Promise<unknown> {
  const reading = await readUsageGroups(analytics, await question(log, version, more));
  if (reading.kind === "refused") return reading.refusal.kind;
  return reading.groups.map(({ group, quantity }) => [...group, formatQuantity(quantity)].join(" "));
}

describe("usage with corrections", () => {
  it("G3: has no row where every usage event was voided, as if it had never been", async () => {
    const { log, meters } = newLog();
    for (const version of Object.values(meters)) log.append(0, DAY, { kind: "meter.activate", version });
    const eu = log.append(0, DAY, usage(DAY + HOUR_MS, { v: 5, user: "a", region: "eu" }));
    log.append(0, DAY, usage(DAY + 2 * HOUR_MS, { v: "-5", user: "a", region: "us" }));
    log.append(0, DAY, usage(DAY + 2 * HOUR_MS, { v: 5, user: "a", region: "us" }));
    log.append(0, DAY, { kind: "void", target: eu });
    await log.store();
    const hours = { window: "hour", groupBy: ["region"] } as const;
    expect(await quantities(log, meters.sum, hours)).toEqual(["us 0"]);
    expect(await quantities(log, meters.count, hours)).toEqual(["us 2"]);
    expect(await quantities(log, meters.max, hours)).toEqual(["us 5"]);
    expect(await quantities(log, meters.unique, hours)).toEqual(["us 1"]);
    const voided = { fromAt: DAY + HOUR_MS, toAt: DAY + 2 * HOUR_MS };
    for (const version of Object.values(meters)) expect(await quantities(log, version, voided)).toEqual([]);
  });

  it("G3: sums below zero, and a replacement in another window and customer's dimension", async () => {
    const { log, meters } = newLog();
    for (const version of Object.values(meters)) log.append(0, DAY, { kind: "meter.activate", version });
    const first = log.append(0, DAY, usage(DAY + HOUR_MS, { v: "7.5", user: "a", region: "eu" }));
    log.append(0, DAY, usage(DAY + HOUR_MS, { v: "-2", user: "b", region: "eu" }));
    const replacement = usage(DAY + 3 * HOUR_MS, { v: 1, user: "c", region: "us" }).usage;
    log.append(0, DAY + HOUR_MS, { kind: "replace", target: first, usage: replacement });
    await log.store();
    const hours = { window: "hour", groupBy: ["region"] } as const;
    expect(await quantities(log, meters.sum, hours)).toEqual(["eu -2", "us 1"]);
    expect(await quantities(log, meters.sum)).toEqual(["-1"]);
    expect(await quantities(log, meters.latest, hours)).toEqual(["eu -2", "us 1"]);
    expect(await quantities(log, meters.unique)).toEqual(["2"]);
    const before = { ...hours, cutAt: DAY + HOUR_MS };
    expect(await quantities(log, meters.max, before)).toEqual(["eu 7.5"]);
    expect(await quantities(log, meters.unique, before)).toEqual(["eu 2"]);
  });

  it("counts a value once over windows, groups and customers together", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, { kind: "meter.activate", version: meters.unique });
    for (const [hour, user, region] of [
      [1, "a", "eu"],
      [2, "a", "eu"],
      [2, "a", "us"],
      [3, 7, "eu"],
      [3, "7", "us"],
    ] as const)
      log.append(0, DAY, usage(DAY + hour * HOUR_MS, { user, region }));
    await log.store();
    expect(await quantities(log, meters.unique)).toEqual(["2"]);
    expect(await quantities(log, meters.unique, { groupBy: ["region"] })).toEqual(["eu 2", "us 2"]);
    expect(await quantities(log, meters.unique, { window: "hour" })).toEqual(["1", "1", "1"]);
    expect(await quantities(log, meters.unique, { customer: null })).toEqual(["2"]);
    // An edge on both sides of a value that whole windows hold, too.
    expect(await quantities(log, meters.unique, { fromAt: DAY + HOUR_MS, toAt: DAY + 2 * HOUR_MS + 1 })).toEqual(["1"]);
  });
});

describe("edges", () => {
  it("count usage in front of an activation once it is backfilled, and never after the meter's end", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, usage(DAY + 1_000, { v: 5 }));
    log.append(0, DAY, usage(DAY + 1_000, { v: "unreadable" }));
    log.append(0, DAY + MINUTE_MS, { kind: "meter.activate", version: meters.sum });
    log.append(0, DAY + MINUTE_MS, { kind: "meter.end", version: meters.sum, untilAt: DAY + 12 * MINUTE_MS });
    log.append(0, DAY + MINUTE_MS, { kind: "meter.end", version: meters.sum, untilAt: DAY + 11 * MINUTE_MS });
    log.append(0, DAY + 10 * MINUTE_MS, usage(DAY + 11 * MINUTE_MS - 1, { v: 7 }));
    log.append(0, DAY + 11 * MINUTE_MS, usage(DAY + 11 * MINUTE_MS, { v: 100 }));
    await log.store();
    const [whole, cut] = [{ toAt: DAY + 15 * MINUTE_MS }, { toAt: DAY + 14 * MINUTE_MS }];
    expect(await quantities(log, meters.sum, whole)).toEqual(["7"]);
    expect(await quantities(log, meters.sum, cut)).toEqual(["7"]);
    await log.backfill(0, meters.sum);
    expect(await quantities(log, meters.sum, whole)).toEqual(["12"]);
    expect(await quantities(log, meters.sum, cut)).toEqual(["12"]);
  });

  it("as known at a cut in front of the activation hold nothing, backfilled or not", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, usage(DAY + 1_000, { v: 5 }));
    log.append(0, DAY + HOUR_MS, { kind: "meter.activate", version: meters.sum });
    await log.store();
    await log.backfill(0, meters.sum);
    for (const toAt of [DAY + 14 * MINUTE_MS, DAY + 15 * MINUTE_MS]) {
      expect(await quantities(log, meters.sum, { toAt, cutAt: DAY + HOUR_MS })).toEqual([]);
      expect(await quantities(log, meters.sum, { toAt, cutAt: DAY + HOUR_MS + 900_000 })).toEqual(["5"]);
    }
  });

  it("are read in pages", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, { kind: "meter.activate", version: meters.count });
    const events = PAGE_ROWS_MAX + 1;
    for (let event = 0; event < events; event += 1) log.append(0, DAY, usage(DAY + 1_000 + (event % 100)));
    await log.store(events + 1);
    const range = { fromAt: DAY + 500 };
    expect(await quantities(log, meters.count, range)).toEqual([String(events)]);
    expect(await quantities(log, meters.count, { ...range, eventsMax: events - 1 })).toBe("events");
  }, 120_000);

  it("have their values compared in several statements", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, { kind: "meter.activate", version: meters.unique });
    const values = HASHES_PER_QUERY_MAX + 500;
    for (let value = 0; value < values; value += 1) {
      log.append(0, DAY, usage(DAY + 1_000, { user: value }));
      // Half of the values are in a whole window, too.
      if (value % 2 === 0) log.append(0, DAY, usage(DAY + HOUR_MS, { user: value }));
    }
    await log.store(2 * values);
    expect(await quantities(log, meters.unique, { fromAt: DAY + 500 })).toEqual([String(values)]);
    await expectGrowing(log, meters.unique);
  }, 120_000);

  it("are refused where raw usage events are no longer kept, and whole windows are not", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, { kind: "meter.activate", version: meters.sum });
    log.append(0, DAY, { kind: "meter.activate", version: meters.max });
    const voided = log.append(0, DAY, usage(DAY + 1_000, { v: 5 }));
    log.append(0, DAY, usage(DAY + 2_000, { v: 4 }));
    log.append(0, DAY, { kind: "void", target: voided });
    await log.store();
    const later = { watermarkAt: DAY + 391 * 24 * HOUR_MS };
    expect(await quantities(log, meters.sum, later)).toEqual(["4"]);
    expect(await quantities(log, meters.sum, { ...later, fromAt: DAY + 1 })).toBe("expired");
    expect(await quantities(log, meters.max, later)).toBe("expired");
    expect(await quantities(log, meters.max)).toEqual(["4"]);
  });
});

/** A set that grows between two statements of one reading: read again; and given up when it never stands still. */
async function expectGrowing(log: TestLog, version: MeterVersion): Promise<void> {
  const given = await question(log, version, { fromAt: DAY + 500 });
  let statements = 0;
  const growing = (times: number): AnalyticsStore => ({
    ...analytics,
    async select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> {
      if (sql.includes("rollup_uniq")) {
        statements += 1;
        // The second statement of a try sees one value more than the first.
        if (statements % 2 === 0 && statements <= 2 * times)
          log.append(0, DAY, usage(DAY + HOUR_MS, { user: `new ${log.partitions[0]?.records.length}` }));
        await log.store();
      }
      return analytics.select<Row>(sql, params);
    },
  });
  const once = await readUsageGroups(growing(1), given);
  expect(statements).toBe(4);
  expect(once).toMatchObject({ groups: [{ quantity: BigInt(HASHES_PER_QUERY_MAX + 501) * 1_000_000_000n }] });
  statements = 0;
  await expect(readUsageGroups(growing(99), given)).rejects.toMatchObject({
    code: "STORE_UNAVAILABLE",
    action: "retry",
  });
}

describe("statements", () => {
  it("reach the whole primary key of the rollups and of the raw usage events, past any number of voids", async () => {
    const { log, meters } = newLog();
    log.append(0, DAY, { kind: "meter.activate", version: meters.sum });
    await log.store();
    await analytics.execute(`INSERT INTO raw_events SELECT ${log.stream.streamId}, 0, 10 + number, 'live',
      concat('many_', toString(number % 500)), 'api', toString(number), 'llm.request',
      toDateTime64('${new Date(DAY).toISOString().slice(0, 10)} 00:00:00', 3, 'UTC') + number % 86400, 0,
      toDateTime64('${new Date(DAY).toISOString().slice(0, 10)} 00:00:00', 3, 'UTC') + 86400, 0, 'counted', '', 0,
      '{"v":1}' FROM numbers(400000)`);
    await analytics.execute(`INSERT INTO control_records SELECT ${log.stream.streamId}, 0, 1000000 + number,
      toDateTime64(0, 3, 'UTC'), 'void', toString(10 + 2 * number), '{}' FROM numbers(200000)`);
    const plans: string[] = [];
    const explaining: AnalyticsStore = {
      ...analytics,
      async select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> {
        const rows = await analytics.select<{ explain: string }>(`EXPLAIN indexes = 1 ${sql}`, params);
        plans.push(rows.map(({ explain }) => explain).join("\n"));
        return [];
      },
    };
    const given = await question(log, meters.sum);
    const { definition } = given;
    const windows = [{ customer: "many_7", starts: [DAY / 1_000 + 900, DAY / 1_000 + 9_000] }];
    const edges = { customer: "many_7", spans: [{ fromAt: DAY + 60_000, toAt: DAY + 120_000 }] };
    for (const cutAt of [null, DAY + 48 * HOUR_MS]) {
      const one = { mode: "live", definition, cutAt, eventsMax: 10 } as const;
      await visitCountedUsage(explaining, { ...one, edges, windows: [] }, () => {});
      await visitCountedUsage(explaining, { ...one, edges: null, windows }, () => {});
    }
    for (const plan of plans) {
      const raw = plan.slice(plan.indexOf("raw_events)"));
      expect(raw).toContain("customer in");
      expect(raw).toContain("toStartOfFifteenMinutes(occurredAt)");
      const [read, of] =
        [...raw.matchAll(/Granules: (\d+)\/(\d+)/g)]
          .at(plan.indexOf("control_records)") > plan.indexOf("raw_events)") ? -2 : -1)
          ?.slice(1) ?? [];
      expect(Number(of), plan).toBeGreaterThan(40);
      expect(Number(read), plan).toBeLessThan(5);
    }
    plans.length = 0;
    const range = { ...given, customer: "c", version: meters.sum, without: [], hashes: [] };
    await selectRollups(explaining, { ...range, window: "day" });
    expect(plans[0]).toMatch(/Keys:\s+mode\s+customer\s+meter\s+meterVersion\s+windowStart\s/);
    for (const condition of ["mode in [1, 1]", "customer in ['c', 'c']", "meterVersion in [1, 1]", "windowStart in ["])
      expect(plans[0]).toContain(condition);
  });

  it("G7: has no watermark before every partition stored progress", async () => {
    const stream = { streamId: 900, partitionCount: 2 };
    const columns = ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"];
    const row = (partition: number, clock: number) => [900, partition, 1, clock, 0, 0, "test", 0];
    expect(await readWatermark(analytics, stream)).toBeNull();
    await analytics.insert({ table: "progress", columns, rows: [row(0, DAY)] });
    expect(await readWatermark(analytics, stream)).toBeNull();
    await analytics.insert({ table: "progress", columns, rows: [row(1, DAY - 1)] });
    expect(await readWatermark(analytics, stream)).toBe(DAY - 1);
  });
});
