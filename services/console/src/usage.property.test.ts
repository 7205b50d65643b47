/** Random usage against a recount in the dullest way: one pass over the usage events, days and hours named by Intl. */
import { HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { type UsageWindow, USAGE_WINDOWS } from "@tallyhouse/usage";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { activate, type Counted, counted, openTestConsole, store, type TestConsole } from "./test-support.ts";
import type { UsageRow } from "./usage.ts";

const dimensions = { region: "/region", model: "/model" };
const meters = [
  meterVersion({ meter: "summed", rule: { dimensions } }),
  meterVersion({ meter: "smallest", rule: { dimensions, aggregation: "min" } }),
  meterVersion({ meter: "largest", rule: { dimensions, aggregation: "max" } }),
  meterVersion({ meter: "newest", rule: { dimensions, aggregation: "latest" } }),
];

/** Zones and an instant worth looking at: offsets of a half and a quarter hour, and changed clocks. */
const PLACES: readonly (readonly [string, string])[] = [
  ["UTC", "2026-03-01T00:00:00Z"],
  ["Asia/Kolkata", "2026-05-31T18:30:00Z"],
  ["Asia/Kathmandu", "2026-06-30T18:15:00Z"],
  ["America/New_York", "2026-03-08T07:00:00Z"],
  ["America/New_York", "2026-11-01T06:00:00Z"],
  ["Australia/Lord_Howe", "2026-04-04T15:00:00Z"],
  ["Australia/Lord_Howe", "2026-10-03T15:30:00Z"],
  // Midnight does not exist on the day the clock goes forward.
  ["Africa/Cairo", "2026-04-23T22:00:00Z"],
  ["Pacific/Chatham", "2026-09-26T14:00:00Z"],
];

let world: TestConsole;
let runs = 0;

beforeAll(async () => {
  world = await openTestConsole(Date.UTC(2026, 10, 20));
  for (const meter of meters) await activate(world.analytics, meter);
});
afterAll(() => world.close());

interface Usage {
  readonly offsetMs: number;
  readonly hundredths: number;
  readonly region: string;
  readonly model: string;
}

const usages = fc.array(
  fc.record<Usage>({
    offsetMs: fc.oneof(
      fc.integer({ min: -40 * HOUR_MS, max: 40 * HOUR_MS }),
      // Close to the change of the clock, and on edges of windows.
      fc.integer({ min: -8, max: 8 }).map((quarter) => quarter * 15 * MINUTE_MS),
    ),
    hundredths: fc.integer({ min: -500, max: 100_000 }),
    region: fc.constantFrom("eu", "us", "=1+1"),
    model: fc.constantFrom("a", "b"),
  }),
  { minLength: 1, maxLength: 25 },
);

/** Often short, so that much of the usage lies in the edges. */
const edgeMs = fc.oneof(fc.integer({ min: 1, max: HOUR_MS }), fc.integer({ min: 1, max: 40 * HOUR_MS }));

it("G3: equals a recount of the usage events, for every window, zone, range and aggregation", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        place: fc.constantFrom(...PLACES),
        usages,
        meter: fc.constantFrom(...meters),
        groupBy: fc.constantFrom([], ["model"], ["model", "region"]),
        beforeQuarters: fc.integer({ min: 1, max: 200 }),
        afterQuarters: fc.integer({ min: 1, max: 200 }),
        beforeMs: edgeMs,
        afterMs: edgeMs,
      }),
      async ({ place: [tz, instant], meter, groupBy, ...given }) => {
        runs += 1;
        const customer = `cus_${runs}`;
        const middleAt = Date.parse(instant);
        const events = given.usages.map(({ offsetMs, hundredths, ...dims }, index) =>
          counted(
            { offset: index + 1, partition: index % 3 },
            { occurredAt: middleAt + offsetMs, customer, data: { inputTokens: decimal(hundredths), ...dims } },
          ),
        );
        await store(world.analytics, events, [meter]);
        for (const window of USAGE_WINDOWS) {
          const isTotal = window === "total";
          const fromAt = middleAt - (isTotal ? given.beforeMs : given.beforeQuarters * 15 * MINUTE_MS);
          const toAt = middleAt + (isTotal ? given.afterMs : given.afterQuarters * 15 * MINUTE_MS);
          const rows = await ask({ customer, meter: meter.meter, window, tz, fromAt, toAt, groupBy });
          const inside = events.filter(({ event }) => event.occurredAt >= fromAt && event.occurredAt < toAt);
          const nameOf = isTotal ? () => "total" : bucketNamer(tz, window);
          const wanted = recount(inside, { nameOf, groupBy, aggregation: meter.rule.aggregation });
          // A sum of nothing is 0, said in one row.
          if (isTotal && inside.length === 0 && meter.meter === "summed" && groupBy.length === 0)
            wanted.set("total", "0");
          const found = new Map(
            rows.map((row) => [keyOf(nameOf(Date.parse(row.start)), Object.values(row.group)), row]),
          );
          expect(found.size).toBe(rows.length);
          expect(new Map([...found].map(([key, { quantity }]) => [key, quantity]))).toEqual(wanted);
          for (const row of rows) expectWholeBucket(row, { nameOf, fromAt, toAt });
          expect(rows.map(({ start }) => Date.parse(start))).toEqual(
            rows.map(({ start }) => Date.parse(start)).toSorted((a, b) => a - b),
          );
        }
      },
    ),
    { numRuns: 20 },
  );
  // Some 10 s; a machine that runs other suites at the same time takes several times that.
}, 180_000);

async function ask(question: {
  readonly customer: string;
  readonly meter: string;
  readonly window: UsageWindow;
  readonly tz: string;
  readonly fromAt: number;
  readonly toAt: number;
  readonly groupBy: readonly string[];
}): Promise<UsageRow[]> {
  const { fromAt, toAt, groupBy, ...rest } = question;
  const query = new URLSearchParams({
    ...rest,
    from: new Date(fromAt).toISOString(),
    to: new Date(toAt).toISOString(),
    groupBy: groupBy.join(","),
  });
  const { body } = await world.get(`/v1/usage?${query.toString()}`);
  expect(body).toHaveProperty("data");
  return body["data"] as UsageRow[];
}

/** The row is its whole bucket, cut to the range: the name changes at both ends. */
function expectWholeBucket(
  row: UsageRow,
  { nameOf, fromAt, toAt }: { nameOf: (at: number) => string; fromAt: number; toAt: number },
): void {
  const [startAt, endAt] = [Date.parse(row.start), Date.parse(row.end)];
  expect(nameOf(endAt - 1)).toBe(nameOf(startAt));
  expect(startAt === fromAt || nameOf(startAt - 1) !== nameOf(startAt)).toBe(true);
  expect(endAt === toAt || nameOf(endAt) !== nameOf(startAt)).toBe(true);
}

/** What the zone's clock and calendar call the bucket; the offset tells the two hours of a clock set back apart. */
function bucketNamer(tz: string, window: Exclude<UsageWindow, "total">): (at: number) => string {
  const format = new Intl.DateTimeFormat("sv-SE", {
    timeZone: tz,
    dateStyle: "short",
    timeStyle: "medium",
  });
  const offset = new Intl.DateTimeFormat("en-US", { timeZone: tz, timeZoneName: "longOffset" });
  return (at) => {
    const local = format.format(at);
    switch (window) {
      case "15m":
        return String(Math.floor(at / 900_000));
      case "hour":
        return `${local.slice(0, 13)} ${offset.format(at).split(" ").at(-1) ?? ""}`;
      case "day":
        return local.slice(0, 10);
      case "month":
        return local.slice(0, 7);
    }
  };
}

function recount(
  events: readonly Counted[],
  rule: { nameOf: (at: number) => string; groupBy: readonly string[]; aggregation: string },
): Map<string, string> {
  const buckets = new Map<string, Counted[]>();
  for (const entry of events) {
    const group = rule.groupBy.map((name) => String(entry.event.data[name]));
    const key = keyOf(rule.nameOf(entry.event.occurredAt), group);
    buckets.set(key, [...(buckets.get(key) ?? []), entry]);
  }
  return new Map(
    [...buckets].map(([key, entries]) => {
      const values = entries.map(({ event }) => Math.round(Number(event.data["inputTokens"]) * 100));
      if (rule.aggregation === "min") return [key, decimal(Math.min(...values))];
      if (rule.aggregation === "max") return [key, decimal(Math.max(...values))];
      if (rule.aggregation === "sum") return [key, decimal(values.reduce((a, b) => a + b, 0))];
      const [last] = entries.toSorted(
        (a, b) => b.event.occurredAt - a.event.occurredAt || b.partition - a.partition || b.offset - a.offset,
      );
      return [key, String(last?.event.data["inputTokens"])];
    }),
  );
}

function keyOf(name: string, group: readonly string[]): string {
  return [name, ...group].join("|");
}

/** Hundredths as decimal text in normal form. */
function decimal(hundredths: number): string {
  return String(hundredths / 100);
}
