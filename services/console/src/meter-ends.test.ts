/** How versions of a meter begin and end: which instants are chosen, what the log is told, and what happens when it is told too late. */
import { createLogger } from "@tallyhouse/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createEndWatch, resendLateEnds } from "./meter-ends.ts";
import { drainOutbox } from "./outbox.ts";
import { CONTROL_KEY, openTestConsole, progress, STREAM, type TestConsole } from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const MINUTE_MS = 60_000;
const MAX_AHEAD_MS = 300_000;
/** Noon, 5 minutes of MAX_AHEAD and 10 of margin: 12:15 itself is a window's start. */
const EARLIEST = "2026-11-20T12:15:00Z";
const PARTITIONS = Array.from({ length: STREAM.partitionCount }, (_, partition) => partition);
let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
});
afterEach(async () => {
  await world.control.execute(`DELETE FROM meter_version; DELETE FROM control_outbox;
    ALTER TABLE catalogue_version DISABLE TRIGGER USER; DELETE FROM catalogue_version;
    ALTER TABLE catalogue_version ENABLE TRIGGER USER;
    ALTER TABLE customer_contract DISABLE TRIGGER USER; DELETE FROM customer_contract;
    ALTER TABLE customer_contract ENABLE TRIGGER USER; DELETE FROM customer`);
  for (const table of ["control_records", "progress"]) await world.analytics.execute(`TRUNCATE TABLE ${table}`);
  world.log.records.length = 0;
  world.clock.at = NOON;
});
afterAll(() => world.close());

const rule = (more: object = {}): object => ({
  key: "tokens",
  eventType: "llm.request",
  aggregation: "sum",
  value: "/tokens",
  ...more,
});
const apply = async (more: object = {}) => world.post("/admin/v1/meters/apply?wait=0s", { meters: [rule(more)] });
const diff = async (more: object = {}) => world.post("/admin/v1/meters/diff", { meters: [rule(more)] });
const end = async (body: object = {}, key = "tokens") => world.post(`/admin/v1/meters/${key}/end`, body);
const listed = async (): Promise<unknown> => (await world.get("/admin/v1/meters")).body["meters"];

interface Sent {
  readonly partition: number;
  readonly kind: string;
  readonly body: { readonly version: number; readonly until?: string; readonly rule?: { readonly from: string } };
}

/** Appends what waits; what the log has got by then. */
async function sent(): Promise<Sent[]> {
  await drainOutbox(world, { streamId: STREAM.streamId, key: CONTROL_KEY });
  return world.log.records.map(({ partition, headers, value }) => ({
    partition,
    kind: headers["tallyhouse-control"]?.toString() ?? "",
    body: JSON.parse(value?.toString() ?? "") as Sent["body"],
  }));
}

/** Each end as `version@until`, once; and that every partition got it. */
function endsOf(records: readonly Sent[]): string[] {
  const byText = Map.groupBy(
    records.filter(({ kind }) => kind === "meter.end"),
    ({ body }) => `${body.version}@${body.until}`,
  );
  for (const copies of byText.values()) expect(copies.map(({ partition }) => partition)).toEqual(PARTITIONS);
  return [...byText.keys()];
}

/** Does what the fold does with records that are valid where they stand. */
function take(
  kind: string,
  body: object,
  places: { readonly partitions: readonly number[]; readonly stream?: number },
) {
  const { partitions, stream = STREAM.streamId } = places;
  const text = JSON.stringify({ mode: "live", meter: "tokens", ...body });
  return world.analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: partitions.map((partition) => [stream, partition, kind === "meter.end" ? 50 : 5, NOON, kind, "", text]),
  });
}
const takeEnd = (until: string, partitions: readonly number[], stream?: number): Promise<void> =>
  take("meter.end", { version: 1, until }, { partitions, ...(stream === undefined ? {} : { stream }) });

/** Applies the rule, and its activation is everywhere. */
async function activate(stream?: number): Promise<void> {
  await apply();
  const places = stream === undefined ? { partitions: PARTITIONS } : { partitions: [0, 1], stream };
  await take("meter.activate", { version: 1, rule: rule({ from: "2020-01-01T00:00:00Z" }) }, places);
}

const resend = (now = world.clock.at) => resendLateEnds(world, { stream: STREAM, now, maxAheadMs: MAX_AHEAD_MS });

describe("from", () => {
  test("without one, a new meter counts from its apply on, to the millisecond", async () => {
    world.clock.at = NOON + 1;
    const { body } = await apply();
    expect(body["changes"]).toMatchObject([{ change: "new", version: 1, from: "2026-11-20T12:00:00.001Z" }]);
    const [record] = await sent();
    expect(record?.body.rule?.from).toBe("2026-11-20T12:00:00.001Z");
    expect(await listed()).toMatchObject([{ from: "2026-11-20T12:00:00.001Z", end: null }]);
  });

  test("an absent one equals whatever the newest version has", async () => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    expect((await diff()).body["changes"]).toMatchObject([
      { change: "none", version: 1, from: "2020-01-01T00:00:00Z" },
    ]);
    expect((await apply({ unit: "tok" })).body["changes"]).toMatchObject([{ change: "unit-only", fields: ["unit"] }]);
    expect(endsOf(await sent())).toEqual([]);
  });
});

describe("a new version replaces the old one", () => {
  test("without a from: one instant for both, in the future and on a window", async () => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    const wanted = [
      { change: "new-version", version: 2, fields: ["value"], from: EARLIEST, ends: [{ version: 1, until: EARLIEST }] },
    ];
    expect((await diff({ value: "/n" })).body["changes"]).toMatchObject(wanted);
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject(wanted);
    const records = await sent();
    expect(endsOf(records)).toEqual([`1@${EARLIEST}`]);
    expect(records.filter(({ body }) => body.rule?.from === EARLIEST)).toHaveLength(STREAM.partitionCount);
    expect(await listed()).toMatchObject([
      { version: 1, end: { until: EARLIEST, state: "pending" } },
      { version: 2, end: null },
    ]);
    // Nothing is left to do, however often it is applied.
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([{ change: "none", version: 2 }]);
  });

  test("a later from is the end of the old one, to the millisecond", async () => {
    await apply();
    const from = "2026-12-01T00:00:00.5Z";
    expect((await apply({ value: "/n", from })).body["changes"]).toMatchObject([
      { from, ends: [{ version: 1, until: "2026-12-01T00:00:00.500Z" }] },
    ]);
  });

  test("a correction of the past is backfilled; the old one ends as early as it can", async () => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    const from = "2026-01-01T00:00:00Z";
    expect((await apply({ value: "/n", from })).body["changes"]).toMatchObject([
      { from, ends: [{ version: 1, until: EARLIEST }] },
    ]);
  });

  test("an end that is asked for already stays, unless the new version begins earlier", async () => {
    await apply();
    await apply({ value: "/n", from: "2026-12-01T00:00:00Z" });
    expect((await apply({ value: "/m", from: "2026-11-25T00:00:00Z" })).body["changes"]).toMatchObject([
      {
        version: 3,
        ends: [
          { version: 2, until: "2026-11-25T00:00:00Z" },
          { version: 1, until: "2026-11-25T00:00:00Z" },
        ],
      },
    ]);
    expect((await apply({ value: "/o", from: "2026-11-28T00:00:00Z" })).body["changes"]).toMatchObject([
      { version: 4, ends: [{ version: 3, until: "2026-11-28T00:00:00Z" }] },
    ]);
  });

  test("a crash in the middle of an apply stores neither version nor end", async () => {
    await apply();
    await sent();
    const before = world.log.records.length;
    await world.control.execute("ALTER TABLE control_outbox ADD CONSTRAINT no_ends CHECK (kind <> 'meter.end')");
    expect((await apply({ value: "/n" })).status).toBe(500);
    await world.control.execute("ALTER TABLE control_outbox DROP CONSTRAINT no_ends");
    expect(await sent()).toHaveLength(before);
    expect(await listed()).toMatchObject([{ version: 1, end: null }]);
  });
});

describe("an end without a successor", () => {
  test("by default as early as possible; again changes nothing; earlier moves it, later is refused", async () => {
    await apply();
    const until = "2026-12-01T00:00:00Z";
    expect(await end({ until })).toMatchObject({ status: 200, body: { key: "tokens", ends: [{ version: 1, until }] } });
    expect(await end({ until })).toMatchObject({ status: 200, body: { ends: [{ version: 1, until }] } });
    const later = await end({ until: "2026-12-02T00:00:00Z" });
    expect([later.status, later.body["code"]]).toEqual([409, "METER_END_REFUSED"]);
    expect(await end()).toMatchObject({ status: 200, body: { ends: [{ version: 1, until: EARLIEST }] } });
    expect(endsOf(await sent())).toEqual([`1@${until}`, `1@${EARLIEST}`]);
  });

  test("an instant whose usage may be counted already is refused, and the answer names the earliest", async () => {
    await apply();
    const early = await end({ until: "2026-11-20T12:14:59.999Z" });
    expect([early.status, early.body["code"]]).toEqual([409, "METER_END_REFUSED"]);
    expect(early.body["detail"]).toContain(EARLIEST);
    expect((await end({ until: "soon" })).body["code"]).toBe("BODY_INVALID");
    expect((await end({}, "other")).body["code"]).toBe("METER_UNKNOWN");
  });

  test("the same rule does not come back by itself; with another from it is a new version, and another rule is one too", async () => {
    await apply();
    await end();
    const again = await apply();
    expect([again.status, again.body["code"]]).toEqual([409, "METERS_INVALID"]);
    expect((await diff()).body["changes"]).toMatchObject([{ change: "ended", version: 1 }]);
    expect((await diff({ from: "2026-12-01T00:00:00Z" })).body["changes"]).toMatchObject([
      { change: "new-version", version: 2, ends: [] },
    ]);
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([
      { change: "new-version", version: 2, from: EARLIEST, ends: [] },
    ]);
  });
});

describe("a version that plans name", () => {
  const plan = (interval: string): Promise<{ status: number; body: Record<string, unknown> }> =>
    world.post("/admin/v1/plans/apply", {
      reason: "r",
      actor: "kim",
      file: `schema: tallyhouse.plans/1
plans:
  pro:
    currency: usd
    interval: ${interval}
    price: "1"
    items: {in: {meter: tokens, policy: overage, price: {model: per_unit, unit: "1"}}}
`,
    });
  const DAY_MS = 86_400_000;

  test.each([
    ["month", 31],
    ["year", 366],
  ])("goes on counting until no period of a %s can be rated by it", async (interval, days) => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    expect((await plan(interval)).body["changes"]).toMatchObject([{ change: "new", version: 1 }]);
    const kept = [{ version: 1, plans: ["pro@1"] }];
    const wanted = [{ change: "new-version", version: 2, ends: [], kept }];
    expect((await diff({ value: "/n" })).body["changes"]).toMatchObject(wanted);
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject(wanted);
    expect(await listed()).toMatchObject([{ end: null }, { end: null }]);
    // The plan goes on with what counts now; it moves to the new version once that counts.
    expect((await plan(interval)).body["changes"]).toMatchObject([{ change: "none", version: 1 }]);
    world.clock.at = Date.parse(EARLIEST);
    expect((await plan(interval)).body["changes"]).toMatchObject([
      { change: "new-version", version: 2, text: ["~ meterVersions.tokens: 1 → 2"] },
    ]);
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([{ change: "none", ends: [], kept }]);
    world.clock.at = Date.parse(EARLIEST) + days * DAY_MS - 1;
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([{ change: "none", ends: [], kept }]);
    expect(endsOf(await sent())).toEqual([]);
    world.clock.at += 1;
    const [last] = (await apply({ value: "/n" })).body["changes"] as { ends: { until: string }[] }[];
    expect(last).toMatchObject({ change: "none", ends: [{ version: 1 }], kept: [] });
    expect(endsOf(await sent())).toEqual([`1@${last?.ends[0]?.until}`]);
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([{ ends: [], kept: [] }]);
  });

  test("goes on counting for a contract, too", async () => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    await world.control.execute(`INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by)
      VALUES ('live', 'acme', 'Acme', 'UTC', '2026-11-20T12:00:00Z', 'kim')`);
    const contract = (version: number, createdAt: number, meters: object): Promise<unknown> =>
      world.control.query(
        `INSERT INTO customer_contract (mode, customer_id, version, plan_key, overrides, meter_versions, effective_at, created_at,
           created_by, reason) VALUES ('live', 'acme', $1, 'big', '{}', $2::text::json, $3, $3, 'kim', 'r')`,
        [version, JSON.stringify(meters), new Date(createdAt)],
      );
    await contract(1, NOON, { tokens: 1 });
    const kept = [{ version: 1, plans: ["big+1 of acme"] }];
    expect((await apply({ value: "/n" })).body["changes"]).toMatchObject([{ ends: [], kept }]);
    await contract(2, NOON + DAY_MS, { tokens: 2 });
    world.clock.at = NOON + 367 * DAY_MS - 1;
    expect((await diff({ value: "/n" })).body["changes"]).toMatchObject([{ ends: [], kept }]);
    world.clock.at += 1;
    expect((await diff({ value: "/n" })).body["changes"]).toMatchObject([{ ends: [{ version: 1 }], kept: [] }]);
  });

  test("an ended one, and one that replaces another only later, is not for a new plan", async () => {
    await apply({ from: "2020-01-01T00:00:00Z" });
    await apply({ value: "/n" });
    const rule = `version 2 of "tokens" counts from ${EARLIEST} on, and what is used until then would be left out; apply the plan then`;
    expect(await plan("month")).toMatchObject({ status: 400, body: { problems: [{ line: 7, rule }] } });
    world.clock.at = Date.parse(EARLIEST);
    expect((await plan("month")).body["changes"]).toMatchObject([{ change: "new", version: 1 }]);
    await end();
    expect((await plan("month")).body["problems"]).toMatchObject([
      { field: "plans.pro.items.in.meter", rule: 'the meter "tokens" was ended: nothing would be counted' },
    ]);
  });
});

describe("G1 an end that came too late in the log", () => {
  test("is sent again, where it was not taken, and the listing tells when it really holds", async () => {
    await activate();
    await end();
    await takeEnd(EARLIEST, [0, 1]);
    world.clock.at = NOON + 40 * MINUTE_MS;
    // Partition 2 may still take it, partition 3 can not: its clock is within MAX_AHEAD of the end.
    await progress(world.analytics, { logClockAt: NOON + 10 * MINUTE_MS - 1, partitions: [0, 1, 2] });
    await progress(world.analytics, { logClockAt: NOON + 10 * MINUTE_MS, partitions: [3] });
    await sent();
    const before = world.log.records.length;
    const until = "2026-11-20T13:00:00Z";
    expect(await resend()).toEqual([{ mode: "live", key: "tokens", version: 1, partitions: [3], until }]);
    const records = (await sent()).slice(before);
    expect(records).toMatchObject([{ partition: 3, kind: "meter.end", body: { version: 1, until } }]);
    expect(await listed()).toMatchObject([{ end: { until, state: "pending" } }]);
    // Nothing more is due: partition 3 may take the new one.
    expect(await resend()).toEqual([]);
    await takeEnd(EARLIEST, [2]);
    await takeEnd(until, [3]);
    expect(await listed()).toMatchObject([{ end: { until, state: "stored" } }]);
    world.clock.at = NOON + 300 * MINUTE_MS;
    await progress(world.analytics, { logClockAt: world.clock.at, nextOffset: 1 });
    expect(await resend()).toEqual([]);
  });

  test("is sent again as often as it comes too late", async () => {
    await activate();
    await end();
    for (const round of [1, 2, 3]) {
      world.clock.at = NOON + round * 60 * MINUTE_MS;
      await progress(world.analytics, { logClockAt: world.clock.at, nextOffset: round });
      expect(await resend()).toMatchObject([{ partitions: PARTITIONS }]);
      expect(await resend()).toEqual([]);
    }
    expect(endsOf(await sent())).toHaveLength(4);
  });

  test("a partition without progress is waited for, and two consoles at once send it once", async () => {
    await activate();
    await end();
    world.clock.at = NOON + 60 * MINUTE_MS;
    expect(await resend()).toEqual([]);
    await progress(world.analytics, { logClockAt: world.clock.at });
    const both = await Promise.all([resend(), resend()]);
    expect(both.flat()).toHaveLength(1);
  });

  test("an end that the stream before this one took holds on, and one that it did not take is sent to this one", async () => {
    const stream = { ...STREAM, predecessors: [{ streamId: 90, partitionCount: 2 }] };
    await activate(90);
    await end();
    // Partitions 0 and 2 go on from partition 0, the others from partition 1.
    await takeEnd(EARLIEST, [0], 90);
    world.clock.at = NOON + 60 * MINUTE_MS;
    await progress(world.analytics, { logClockAt: world.clock.at });
    const again = { stream, now: world.clock.at, maxAheadMs: MAX_AHEAD_MS };
    expect(await resendLateEnds(world, again)).toMatchObject([{ partitions: [1, 3] }]);
    await takeEnd("2026-11-20T13:15:00Z", [1, 3]);
    await progress(world.analytics, { logClockAt: NOON + 300 * MINUTE_MS, nextOffset: 1 });
    expect(await resendLateEnds(world, { ...again, now: NOON + 300 * MINUTE_MS })).toEqual([]);
  });

  test("the watch ends with its process", async () => {
    const stop = new AbortController();
    const watch = createEndWatch(
      { stream: STREAM, maxAheadMs: MAX_AHEAD_MS },
      { ...world, logger: createLogger({ level: "silent", name: "test" }) },
    );
    const running = watch.run(stop.signal);
    stop.abort();
    await running;
    await watch.close();
  });
});
