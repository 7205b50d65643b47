import { decodeControl, type LogEntry, TallyhouseError } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createOutbox, drainOutbox } from "./outbox.ts";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import {
  CONTROL_KEY,
  counted,
  type MemoryLog,
  memoryLog,
  openTestConsole,
  store,
  STREAM,
  type TestConsole,
} from "./test-support.ts";

/** Not waiting: nothing here activates a meter by itself, and the clock stands. */
const APPLY = "/admin/v1/meters/apply?wait=0s";
const NOON = Date.UTC(2026, 10, 20, 12);
let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
});
afterEach(async () => {
  await world.control.execute("DELETE FROM meter_version; DELETE FROM control_outbox;");
  await world.analytics.execute("TRUNCATE TABLE control_records");
  await world.analytics.execute("TRUNCATE TABLE raw_events");
  world.log.records.length = 0;
});
afterAll(() => world.close());

function file(meters: string): { file: string } {
  return { file: `schema: tallyhouse.meters/1\nmeters:\n${meters}` };
}
const TOKENS =
  "  - {key: tokens, eventType: llm.request, aggregation: sum, value: /tokens, dimensions: {region: /r, a: /a}, unit: tokens, from: 2000-01-01T00:00:00Z}\n";
const CALLS = "  - {key: calls, eventType: llm.request, aggregation: count, from: 2000-01-01T00:00:00Z}\n";

const drain = (log: MemoryLog = world.log): Promise<number> =>
  drainOutbox({ control: world.control, log }, { streamId: STREAM.streamId, key: CONTROL_KEY });

/** Does with the appended records what the aggregator does: verify, and store the first of each. */
async function aggregate(): Promise<void> {
  const facts = world.log.records.map((record, offset) => {
    const entry: LogEntry = { ...record, offset, receivedAt: NOON, marker: false };
    const reading = decodeControl({ entry, partition: record.partition, keys: [CONTROL_KEY] });
    if (reading.kind !== "control" || reading.fact.kind !== "meter.activate") throw new Error("no activation");
    return { partition: record.partition, offset, body: record.value?.toString("utf8") ?? "" };
  });
  await world.analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: facts.map(({ partition, offset, body }) => [
      STREAM.streamId,
      partition,
      offset,
      NOON,
      "meter.activate",
      "",
      body,
    ]),
  });
}

describe("meters diff and apply", () => {
  it("shows what is new, applies it, and then finds nothing to do", async () => {
    const diff = await world.post("/admin/v1/meters/diff", file(TOKENS + CALLS));
    expect(diff.body).toEqual({
      mode: "live",
      changes: [
        { key: "tokens", change: "new", version: 1, fields: [], from: "2000-01-01T00:00:00Z", ends: [], kept: [] },
        { key: "calls", change: "new", version: 1, fields: [], from: "2000-01-01T00:00:00Z", ends: [], kept: [] },
      ],
    });
    const applied = await world.post(APPLY, file(TOKENS + CALLS));
    expect([applied.status, applied.body["state"]]).toEqual([202, "pending"]);
    expect(await drain()).toBe(2 * STREAM.partitionCount);
    await aggregate();
    const again = await world.post(APPLY, file(TOKENS + CALLS));
    expect([again.status, again.body["state"]]).toEqual([200, "active"]);
    expect(again.body["changes"]).toMatchObject([{ change: "none" }, { change: "none" }]);
    expect(await drain()).toBe(0);
    const { body } = await world.get("/admin/v1/meters");
    expect(body["meters"]).toMatchObject([
      { key: "calls", version: 1, state: "active", unit: "units" },
      { key: "tokens", version: 1, state: "active", unit: "tokens", from: "2000-01-01T00:00:00Z" },
    ]);
  });

  it("keeps the order of dimensions through PostgreSQL, and sees a changed order as a new version", async () => {
    await world.post(APPLY, file(TOKENS));
    await drain();
    const rule = JSON.parse(world.log.records[0]?.value?.toString("utf8") ?? "") as { rule: { dimensions: object } };
    expect(Object.keys(rule.rule.dimensions)).toEqual(["region", "a"]);
    const swapped = TOKENS.replace("{region: /r, a: /a}", "{a: /a, region: /r}");
    const { body } = await world.post("/admin/v1/meters/diff", file(swapped));
    expect(body["changes"]).toMatchObject([
      { key: "tokens", change: "new-version", version: 2, fields: ["dimensions"] },
    ]);
  });

  it("names changed fields; a unit alone is no new version, and no version comes back", async () => {
    await world.post(APPLY, file(TOKENS));
    const changed = TOKENS.replace("value: /tokens", "value: /n").replace("unit: tokens", "unit: tok");
    const diff = await world.post("/admin/v1/meters/diff", file(changed));
    expect(diff.body["changes"]).toMatchObject([
      { key: "tokens", change: "new-version", version: 2, fields: ["value", "unit"] },
    ]);
    const renamed = await world.post(APPLY, file(TOKENS.replace("unit: tokens", "unit: tok")));
    expect(renamed.body["changes"]).toMatchObject([
      { key: "tokens", change: "unit-only", version: 1, fields: ["unit"] },
    ]);
    await world.post(APPLY, file(changed));
    const back = await world.post(APPLY, file(TOKENS));
    expect([back.status, back.body["code"]]).toEqual([409, "METERS_INVALID"]);
    expect(back.body["problems"]).toMatchObject([
      { field: "tokens", rule: expect.stringMatching(/version 1/) as string },
    ]);
    const later = TOKENS.replace("2000-01-01", "2001-01-01");
    const again = await world.post(APPLY, file(later));
    expect(again.body["changes"]).toMatchObject([{ change: "new-version", version: 3 }]);
    // Three activations, and the ends of versions 1 and 2.
    expect(await drain()).toBe(5 * STREAM.partitionCount);
  });

  it("takes the mode from the token", async () => {
    await world.post(APPLY, file(TOKENS), "test");
    const live = await world.get("/admin/v1/meters");
    expect(live.body["meters"]).toEqual([]);
    const test = await world.get("/admin/v1/meters", "test");
    expect(test.body).toMatchObject({ mode: "test", meters: [{ key: "tokens" }] });
  });

  it("reports every problem of a file with its line, and takes a list as well", async () => {
    const wrong = await world.post(
      APPLY,
      file("  - {key: A}\n  - {key: b, eventType: x, aggregation: sum, value: nope, from: now}\n"),
    );
    expect([wrong.status, wrong.body["code"]]).toEqual([400, "METERS_INVALID"]);
    const problems = wrong.body["problems"] as { line: number; field: string }[];
    expect(new Set(problems.map(({ line }) => line))).toEqual(new Set([3, 4]));
    expect(problems.length).toBeGreaterThanOrEqual(4);
    const list = await world.post("/admin/v1/meters/diff", {
      meters: [{ key: "calls", eventType: "x", aggregation: "count", from: "2000-01-01T00:00:00Z" }],
    });
    expect(list.body["changes"]).toMatchObject([{ key: "calls", change: "new" }]);
    const neither = await world.post("/admin/v1/meters/diff", { meter: [] });
    expect([neither.status, neither.body["code"]]).toEqual([400, "BODY_INVALID"]);
  });

  it("takes a from before stored usage: that usage is backfilled", async () => {
    await store(world.analytics, [counted({ offset: 1 }, { occurredAt: NOON - 60_000 })], []);
    expect((await world.post(APPLY, file(TOKENS + CALLS))).status).toBe(202);
    expect((await world.get("/admin/v1/meters")).body["meters"]).toMatchObject([{ key: "calls" }, { key: "tokens" }]);
  });

  it("makes one version of many equal applies at once", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => world.post(APPLY, file(TOKENS))));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 202));
    const [row] = await world.control.query<{ versions: string; records: string }>(
      "SELECT (SELECT count(*) FROM meter_version) AS versions, (SELECT count(*) FROM control_outbox) AS records",
    );
    expect([Number(row?.versions), Number(row?.records)]).toEqual([1, STREAM.partitionCount]);
  });

  it("waits for its meters when asked to", async () => {
    const work = world.post("/admin/v1/meters/apply?wait=20s", file(TOKENS));
    await until(async () => (await drain()) > 0);
    await aggregate();
    const { status, body } = await work;
    expect([status, body["state"]]).toEqual([200, "active"]);
    const tooLong = await world.post("/admin/v1/meters/apply?wait=21s", file(TOKENS));
    expect(tooLong.status).toBe(400);
  });
});

describe("the outbox", () => {
  it("G1: appends again what a crash left unmarked, and loses nothing", async () => {
    await world.post(APPLY, file(TOKENS));
    // The crash between append and mark, at the port: the records are in the log, the update never happens.
    const crashing = { ...world.control, query: failAt(world.control.query.bind(world.control), 2) };
    await expect(
      drainOutbox({ control: crashing, log: world.log }, { streamId: STREAM.streamId, key: CONTROL_KEY }),
    ).rejects.toThrow("crash");
    expect(world.log.records.length).toBe(STREAM.partitionCount);
    expect(await drain()).toBe(STREAM.partitionCount);
    expect(await drain()).toBe(0);
    const [before, after] = [world.log.records.slice(0, 4), world.log.records.slice(4)];
    expect(after).toEqual(before);
  });

  it("leaves the records of another stream alone", async () => {
    await world.post(APPLY, file(TOKENS));
    expect(await drainOutbox({ control: world.control, log: world.log }, { streamId: 7, key: CONTROL_KEY })).toBe(0);
    expect(world.log.records).toEqual([]);
  });

  it("keeps trying while the log is away, in the order of the applies, and stops when told", async () => {
    const log = memoryLog();
    let refusals = 3;
    const flaky = {
      ...log,
      append: (records: Parameters<MemoryLog["append"]>[0]) => {
        refusals -= 1;
        if (refusals < 0) return log.append(records);
        const error = { code: "LOG_UNAVAILABLE", action: "retry", message: "away" } as const;
        return Promise.reject(new TallyhouseError(error));
      },
    };
    const outbox = createOutbox(
      { streamId: STREAM.streamId, key: CONTROL_KEY, pollMs: 1 },
      {
        control: world.control,
        log: flaky,
        logger: createLogger({ level: "silent", name: "t" }),
        metrics: createMetrics(),
      },
    );
    const stop = new AbortController();
    const running = outbox.run(stop.signal);
    await world.post(APPLY, file(CALLS));
    await world.post(APPLY, file(TOKENS));
    await until(() => log.records.length === 2 * STREAM.partitionCount);
    stop.abort();
    await running;
    const meters = log.records.map(
      ({ value }) => (JSON.parse(value?.toString("utf8") ?? "") as { meter: string }).meter,
    );
    expect(meters).toEqual([...Array.from({ length: 4 }, () => "calls"), ...Array.from({ length: 4 }, () => "tokens")]);
  });

  it("ends the process for an error that no retry mends", async () => {
    const broken = { ...memoryLog(), append: () => Promise.reject(new Error("a bug")) };
    const outbox = createOutbox(
      { streamId: STREAM.streamId, key: CONTROL_KEY, pollMs: 1 },
      {
        control: world.control,
        log: broken,
        logger: createLogger({ level: "silent", name: "t" }),
        metrics: createMetrics(),
      },
    );
    await world.post(APPLY, file(TOKENS));
    await expect(outbox.run(new AbortController().signal)).rejects.toThrow("a bug");
  });
});

/** The store's query, dying at its n-th call. */
function failAt<Query extends (...given: never[]) => Promise<unknown>>(query: Query, call: number): Query {
  let calls = 0;
  return ((...given: never[]) => {
    calls += 1;
    return calls === call ? Promise.reject(new Error("crash")) : query(...given);
  }) as Query;
}
