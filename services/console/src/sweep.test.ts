import { DAY_MS, type Mode, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";
import { createLogger } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { sweep, type SweepResult } from "./sweep.ts";
import { dueBefore } from "./sweeper.ts";
import { drain, fold } from "./test-fold.ts";
import { type Counted, counted, openTestConsole, rawRowOf, store, STREAM, type TestConsole } from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const NOTHING: SweepResult = { repeated: 0, voided: 0, leftOver: 0 };
let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
});
beforeEach(async () => {
  await world.control.execute("DELETE FROM correction; DELETE FROM control_outbox; DELETE FROM sweep;");
  await world.analytics.execute("TRUNCATE TABLE raw_events");
  await world.analytics.execute("TRUNCATE TABLE control_records");
  world.log.records.length = 0;
});
afterAll(() => world.close());

/** A counted usage event `days` after the first, with a time to match: beyond the horizon such a copy counts again. */
async function given(
  offset: number,
  days: number,
  { stream = 1, ...event }: Partial<UsageEvent> & { readonly stream?: number } = {},
): Promise<Counted> {
  const whole = { mode: "live" as Mode, customer: "acme", source: "api", id: "evt-1", ...event };
  const partition = partitionOfEvent(whole, STREAM.partitionCount);
  const entry = counted({ offset, partition }, { ...whole, occurredAt: NOON + (days - 100) * DAY_MS });
  const row = { ...rawRowOf(entry), stream };
  await world.analytics.insert({ table: "raw_events", columns: Object.keys(row), rows: [Object.values(row)] });
  return entry;
}
const run = (mode: Mode = "live"): Promise<SweepResult | null> =>
  sweep(
    { ...world, stream: STREAM, logger: createLogger({ level: "silent", name: "test" }) },
    { mode, isWanted: () => true },
  );
const corrections = async (): Promise<{ actor: string; log_offset: string; reason: string }[]> =>
  world.control.query("SELECT actor, log_offset, reason FROM correction ORDER BY log_offset");

describe("the sweep", () => {
  it("G2 takes back all but the first of an identity, however often it runs and before the log has folded it", async () => {
    await given(30, 80);
    const first = await given(10, 0);
    await given(20, 40);
    await given(11, 0, { id: "evt-2" });
    await given(12, 40, { source: "other" });
    await given(13, 40, { customer: "other" });
    await given(14, 40, { mode: "test" });
    expect(await run()).toEqual({ repeated: 1, voided: 2, leftOver: 0 });
    expect(await corrections()).toMatchObject([
      { actor: "sweep", log_offset: "1020", reason: expect.stringContaining(`1/${first.partition}/1010`) as string },
      { actor: "sweep", log_offset: "1030" },
    ]);
    expect(await run()).toEqual(NOTHING);
    expect(await drain(world)).toBe(2);
    await fold(world);
    expect(await run()).toEqual(NOTHING);
    expect(await corrections()).toHaveLength(2);
    const left = await world.analytics.select<{ offset: string }>(
      "SELECT toString(logOffset) AS offset FROM counted_events WHERE id = 'evt-1' AND customer = 'acme' AND source = 'api' AND mode = 'live'",
    );
    expect(left).toEqual([{ offset: "1010" }]);
  });

  it("G2 does the same when two of them run at once", async () => {
    for (let id = 0; id < 20; id += 1) {
      await given(id, 0, { id: `evt-${id}` });
      await given(100 + id, 40, { id: `evt-${id}` });
    }
    const results = await Promise.all([run(), run(), run()]);
    expect(results.reduce((sum, result) => sum + (result?.voided ?? 0), 0)).toBe(20);
    expect(await drain(world)).toBe(20);
  });

  it("leaves alone what an operator took back, copies of a replay, and takes a replacement as the identity that it has", async () => {
    const first = await given(10, 0);
    await store(world.analytics, [first], []);
    expect(await run()).toEqual(NOTHING);
    await given(20, 40);
    // The first one is voided by hand, so the second is the only one that counts.
    await world.control.query(
      `INSERT INTO correction (mode, customer_id, source, event_id, stream, partition, log_offset, kind, reason, actor, event_before, created_at)
       VALUES ('live', 'acme', 'api', 'evt-1', 1, $1, 1010, 'void', 'r', 'kim', '{}', now())`,
      [first.partition],
    );
    expect(await run()).toEqual(NOTHING);
    const replacement = { ...rawRowOf(await given(30, 50, { id: "evt-1~r1" })), reason: "replace" };
    await world.analytics.insert({
      table: "raw_events",
      columns: Object.keys(replacement),
      rows: [Object.values(replacement)],
    });
    expect(await run()).toEqual(NOTHING);
    await given(40, 90, { id: "evt-1~r1" });
    expect(await run()).toEqual({ repeated: 1, voided: 1, leftOver: 0 });
    expect(await corrections()).toMatchObject([{ log_offset: "1010" }, { log_offset: "1040" }]);
  });

  it("takes the copy in the newer stream back, and says what it must leave in the older one", async () => {
    await given(10, 0, { stream: 0 });
    await given(5, 40, { stream: 0 });
    await given(1, 60);
    expect(await run()).toEqual({ repeated: 1, voided: 1, leftOver: 1 });
    expect(await corrections()).toMatchObject([{ log_offset: "1001" }]);
    expect(await run()).toEqual({ repeated: 1, voided: 0, leftOver: 1 });
  });

  it("ends in the middle when it is told to, and the next one does the rest", async () => {
    for (let id = 0; id < 5; id += 1) {
      await given(id, 0, { id: `evt-${id}` });
      await given(100 + id, 40, { id: `evt-${id}` });
    }
    let looks = 0;
    const ports = { ...world, stream: STREAM, logger: createLogger({ level: "silent", name: "test" }) };
    expect(await sweep(ports, { mode: "live", isWanted: () => (looks += 1) < 4 })).toBe(null);
    const done = (await corrections()).length;
    expect([done > 0, done < 5]).toEqual([true, true]);
    expect(await run()).toEqual({ repeated: 5 - done, voided: 5 - done, leftOver: 0 });
  });

  it("finds every one of them, page by page", async () => {
    await world.analytics.execute(
      `INSERT INTO raw_events (stream, logPartition, logOffset, mode, customer, source, id, type, occurredAt, receivedAt, bookedAt, decidedAt, status, reason, payloadHash, payload)
       SELECT 1, 0, number, 'live', 'acme', 'api', concat('evt-', toString(number % 1000)), 'llm.request', at, at, at, at, 'counted', '', 0, '{}'
       FROM (SELECT number, toDateTime64('2026-11-01 00:00:00', 3, 'UTC') + number AS at FROM numbers(1205))`,
    );
    expect(await run()).toEqual({ repeated: 205, voided: 205, leftOver: 0 });
    const offsets = (await corrections()).map(({ log_offset }) => Number(log_offset));
    expect(offsets).toEqual(Array.from({ length: 205 }, (_, index) => 1_000 + index));
  });
});

describe("the sweeper", () => {
  it("knows the last night", () => {
    expect(new Date(dueBefore(NOON, 3)).toISOString()).toBe("2026-11-20T03:00:00.000Z");
    expect(new Date(dueBefore(NOON, 12)).toISOString()).toBe("2026-11-20T12:00:00.000Z");
    expect(new Date(dueBefore(NOON, 13)).toISOString()).toBe("2026-11-19T13:00:00.000Z");
  });

  it("runs each night once, and when asked; a token sees its own mode", async () => {
    await given(10, 0);
    await given(20, 40);
    const asked = await world.post("/admin/v1/sweeps", {});
    expect(asked).toMatchObject({ status: 202, body: { mode: "live", state: "waiting", dueAt: null } });
    expect((await world.post("/admin/v1/sweeps", {})).body["id"]).toBe(asked.body["id"]);
    const stop = new AbortController();
    const running = world.sweeper.run(stop.signal);
    const finished = async (mode: Mode): Promise<object[]> => {
      const { body } = await world.get("/admin/v1/sweeps", mode);
      return (body["sweeps"] as { state: string }[]).filter(({ state }) => state === "finished");
    };
    await until(async () => (await finished("live")).length === 2 && (await finished("test")).length === 1);
    stop.abort();
    await running;
    const [night, first] = await finished("live");
    expect(first).toMatchObject({ id: asked.body["id"], dueAt: null, repeated: 1, voided: 1, leftOver: 0 });
    expect(night).toMatchObject({ dueAt: "2026-11-20T03:00:00Z", repeated: 0, voided: 0 });
    const metrics = await world.metrics.metrics();
    expect(metrics).toMatch(/tallyhouse_console_swept_events_total\{mode="live"\} 1/);
    expect(metrics).toMatch(/tallyhouse_console_sweep_finished_seconds\{mode="test"\} 1795\d+/);
  });
});
