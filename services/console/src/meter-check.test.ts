/** What a rule would have counted: equal to what an active meter says, whole, each usage event once, and bounded. */
import { AGGREGATIONS, type MeterVersion } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type CheckLine, checkMeters } from "./meter-check.ts";
import { readCheckPages } from "./meter-check-query.ts";
import {
  activate,
  counted,
  type Counted,
  LIVE_TOKEN,
  openTestConsole,
  progress,
  store,
  STREAM,
  type TestConsole,
} from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Cut through windows on both sides. */
const SPAN = { fromAt: NOON - 3 * DAY_MS + 1_234, toAt: NOON - HOUR_MS - 77 };
const QUERY = new URLSearchParams({
  from: new Date(SPAN.fromAt).toISOString(),
  to: new Date(SPAN.toAt).toISOString(),
}).toString();
let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
});
afterEach(async () => {
  for (const table of ["control_records", "raw_events", "rollup", "progress"])
    await world.analytics.execute(`TRUNCATE TABLE ${table}`);
});
afterAll(() => world.close());

/** Usage of four days by three customers, in all partitions, with every kind of value. */
function usage(events: number): Counted[] {
  const values = ["1.5", 2, "0.000000001", null, -3, undefined, 40];
  return Array.from({ length: events }, (_, n) =>
    counted(
      { offset: n },
      {
        customer: `cus_${n % 3}`,
        occurredAt: NOON - 4 * DAY_MS + Math.floor((n * 4 * DAY_MS) / events) + (n % 7),
        data: { v: values[n % values.length], status: n % 4 === 0 ? 500 : 200, model: `m${n % 2}` },
      },
    ),
  );
}

function versionOf(aggregation: MeterVersion["rule"]["aggregation"]): MeterVersion {
  const { rule, ...version } = meterVersion({
    meter: `m_${aggregation}`,
    rule: { aggregation, dimensions: { model: "/model" } },
  });
  const where = [{ path: "/status", in: ["200"] }];
  const { value: _value, ...counts } = rule;
  return { ...version, rule: aggregation === "count" ? { ...counts, where } : { ...rule, where, value: "/v" } };
}

async function linesOf(lines: AsyncIterable<CheckLine>): Promise<CheckLine[]> {
  const all: CheckLine[] = [];
  for await (const line of lines) all.push(line);
  return all;
}

const figures = (lines: readonly CheckLine[]): CheckLine[] => lines.filter(({ kind }) => kind !== "progress");
const check = async (rules: readonly MeterVersion[], readPages?: typeof readCheckPages): Promise<CheckLine[]> =>
  linesOf(checkMeters(world.analytics, { mode: "live", rules: rules.map(({ rule }) => rule), ...SPAN }, readPages));

async function post(body: object, query = QUERY): Promise<{ status: number; lines: CheckLine[]; text: string }> {
  const answer = await world.app.inject({
    method: "POST",
    url: `/admin/v1/meters/check?${query}`,
    headers: { authorization: `Bearer ${LIVE_TOKEN}` },
    payload: body,
  });
  const text = answer.payload;
  const isStream = answer.headers["content-type"] === "application/x-ndjson";
  const lines = isStream
    ? text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as CheckLine)
    : [];
  return { status: answer.statusCode, lines, text };
}

describe("against an active meter", () => {
  test.each(AGGREGATIONS)("G3 %s: equal to the usage API over the same span", async (aggregation) => {
    const version = versionOf(aggregation);
    const events = usage(2_000);
    await activate(world.analytics, version);
    await store(world.analytics, events, [version]);
    await progress(world.analytics, { logClockAt: NOON });
    const lines = await check([version]);
    for (const customer of ["cus_0", "cus_1", "cus_2"]) {
      const answer = await world.get(`/v1/usage?customer=${customer}&meter=${version.meter}&${QUERY}`);
      const [row] = answer.body["data"] as { quantity: string }[];
      const line = lines.find((each) => each.kind === "customer" && each.customer === customer);
      expect([customer, line]).toMatchObject([customer, { quantity: row?.quantity }]);
    }
  });
});

test("every usage event is accounted for: matched, skipped, without a value, or unreadable and named", async () => {
  const at = SPAN.fromAt;
  const one = (offset: number, data: object, more: object = {}): Counted =>
    counted({ offset }, { customer: "cus_1", occurredAt: at + offset, data: { ...data }, ...more });
  await store(
    world.analytics,
    [
      one(0, { v: 1, status: 200 }),
      one(1, { v: 1, status: 404 }),
      one(2, { v: "much", status: 404 }),
      one(3, { status: 200 }),
      one(4, { v: null, status: 200 }),
      one(5, { v: "much", status: 200 }),
      one(6, { v: 1, status: 200 }, { type: "other" }),
      one(7, { v: 1, status: 200 }, { mode: "test" }),
      one(8, { v: 1, status: 200 }, { occurredAt: at - 1 }),
      one(9, { v: 1, status: 200 }, { occurredAt: SPAN.toAt }),
      one(10, { v: "0.5", status: 200 }, { customer: "cus_2", occurredAt: SPAN.toAt - 1 }),
    ],
    [],
  );
  const version = versionOf("sum");
  const counts = { events: 6, matched: 1, skippedByWhere: 2, withoutValue: 2, unreadable: 1 };
  expect(figures(await check([version]))).toEqual([
    { kind: "customer", key: "m_sum", customer: "cus_1", quantity: "1", ...counts },
    {
      kind: "customer",
      key: "m_sum",
      customer: "cus_2",
      quantity: "0.5",
      events: 1,
      matched: 1,
      skippedByWhere: 0,
      withoutValue: 0,
      unreadable: 0,
    },
    {
      kind: "meter",
      key: "m_sum",
      customers: 2,
      quantity: "1.5",
      examples: [{ customer: "cus_1", source: "api", id: "evt-1005", occurredAt: new Date(at + 5).toISOString() }],
      ...counts,
      events: 7,
      matched: 2,
    },
    { kind: "end" },
  ]);
});

test("several meters at once, of one type and of two; a rule's own from holds, and one without from counts the whole span", async () => {
  const events = usage(300);
  await store(world.analytics, events, []);
  const late = {
    ...versionOf("count"),
    rule: { ...versionOf("count").rule, where: [], from: new Date(NOON - DAY_MS).toISOString() },
  };
  const { from: _from, ...undated } = { ...late.rule, key: "all" };
  const other = { ...undated, key: "other", eventType: "other" };
  const lines = await linesOf(
    checkMeters(world.analytics, { mode: "live", rules: [late.rule, undated, other], ...SPAN }),
  );
  const inSpan = events.filter(({ event }) => event.occurredAt >= SPAN.fromAt && event.occurredAt < SPAN.toAt);
  const wanted = [inSpan.filter(({ event }) => event.occurredAt >= NOON - DAY_MS).length, inSpan.length, 0];
  const totals = lines.filter((line) => line.kind === "meter");
  expect(totals.map(({ key, quantity }) => [key, quantity])).toEqual([
    ["m_count", String(wanted[0])],
    ["all", String(wanted[1])],
    ["other", "0"],
  ]);
});

test("unique_count tells texts of one customer apart over the whole span; max has no total over customers", async () => {
  await store(world.analytics, usage(500), []);
  const lines = await check([versionOf("unique_count"), versionOf("max")]);
  const quantities = lines.flatMap((line) =>
    line.kind === "customer" || line.kind === "meter" ? [[line.key, line.quantity]] : [],
  );
  expect(quantities.filter(([key]) => key === "m_unique_count")).toEqual([
    ["m_unique_count", "5"],
    ["m_unique_count", "5"],
    ["m_unique_count", "5"],
    ["m_unique_count", "15"],
  ]);
  expect(quantities.filter(([key]) => key === "m_max")).toEqual([
    ["m_max", "40"],
    ["m_max", "40"],
    ["m_max", "40"],
    ["m_max", null],
  ]);
});

test("G2 pages, slices and rows that are stored twice change nothing; what was voided or replaced is left out", async () => {
  const events = usage(240);
  await store(world.analytics, events, []);
  await store(world.analytics, events.slice(50, 150), []);
  const rules = [versionOf("sum"), versionOf("latest")];
  const whole = figures(await check(rules));
  for (const limits of [
    { sliceRows: 50, pageRows: 17 },
    { sliceRows: 1, pageRows: 3 },
    { sliceRows: 1_000_000, pageRows: 31 },
  ]) {
    expect(figures(await check(rules, (analytics, span) => readCheckPages(analytics, span, limits)))).toEqual(whole);
  }
  const sum = events.find(
    ({ event }) => event.occurredAt > SPAN.fromAt && event.data["v"] === 40 && event.data["status"] === 200,
  );
  await world.analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: [[STREAM.streamId, sum?.partition ?? 0, 99_999, NOON, "void", String(sum?.offset), ""]],
  });
  const total = (lines: readonly CheckLine[]): number =>
    Number(lines.flatMap((line) => (line.kind === "meter" && line.key === "m_sum" ? [line.quantity] : []))[0]);
  expect(total(await check(rules))).toBeCloseTo(total(whole) - 40, 9);
});

describe("the route", () => {
  const meters = [{ key: "calls", eventType: "llm.request", aggregation: "count" }];

  test("answers line by line, the last one end; the mode is the token's", async () => {
    await store(
      world.analytics,
      [
        counted({ offset: 1 }, { occurredAt: NOON - DAY_MS }),
        counted({ offset: 2 }, { occurredAt: NOON - DAY_MS, mode: "test" }),
      ],
      [],
    );
    const { status, lines } = await post({ meters });
    expect(status).toBe(200);
    expect(lines[0]).toEqual({ kind: "progress", type: "llm.request", events: 0, totalEvents: 0 });
    expect(lines.slice(-2)).toMatchObject([{ kind: "meter", key: "calls", quantity: "1" }, { kind: "end" }]);
  });

  test.each([
    ["no span", "", { meters }],
    ["a span backwards", "from=2026-11-20T00:00:00Z&to=2026-11-19T00:00:00Z", { meters }],
    ["a span of years", "from=2020-11-20T00:00:00Z&to=2026-11-19T00:00:00Z", { meters }],
    ["no meters", QUERY, {}],
    ["wrong meters", QUERY, { meters: [{}] }],
  ])("refuses %s", async (_name, query, body) => {
    expect((await post(body, query)).status).toBe(400);
  });

  test("runs two checks at a time", async () => {
    const answers = await Promise.all([1, 2, 3, 4].map(() => post({ meters })));
    expect(answers.map(({ status }) => String(status)).sort()).toEqual(["200", "200", "503", "503"]);
    expect((await post({ meters })).status).toBe(200);
  });
});

test("an outage is told as the last line, not taken for the end", async () => {
  await world.analytics.execute("RENAME TABLE raw_events TO raw_events_away");
  const { status, lines } = await post({ meters: [{ key: "calls", eventType: "llm.request", aggregation: "count" }] });
  await world.analytics.execute("RENAME TABLE raw_events_away TO raw_events");
  expect([status, lines.at(-1)]).toMatchObject([200, { kind: "problem" }]);
});
