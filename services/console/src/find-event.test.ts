import { formatInstant, HOUR_MS, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RAW_ROWS_SQL } from "./raw-rows.ts";
import { drain, fold } from "./test-fold.ts";
import {
  activate,
  type Counted,
  counted,
  openTestConsole,
  progress,
  rawRow,
  store,
  STREAM,
  type TestConsole,
} from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const rule = { dimensions: { model: "/model" } };
const tokens = meterVersion({ meter: "tokens", rule });
const calls = meterVersion({
  meter: "calls",
  rule: { aggregation: "count", value: undefined, from: "2026-11-20T11:00:00Z" },
});
const models = meterVersion({ meter: "models", rule: { aggregation: "unique_count", value: "/model" } });
const ended = meterVersion({ meter: "ended" });
const later = meterVersion({ meter: "later" });
const notYet = meterVersion({ meter: "not_yet" });
const BEHIND_EVENTS = 500_000;
let world: TestConsole;
let number = 0;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  for (const meter of [tokens, calls, models, ended]) await activate(world.analytics, meter);
  await activate(world.analytics, meterVersion({ meter: "tokens", mode: "test" }));
  await activate(world.analytics, later, BEHIND_EVENTS);
  await activate(world.analytics, notYet, BEHIND_EVENTS + 1);
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) {
    await world.analytics.insert({
      table: "control_records",
      columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
      rows: [
        [
          1,
          partition,
          600,
          NOON,
          "meter.end",
          "",
          '{"mode":"live","meter":"ended","version":1,"until":"2026-11-20T11:30:00Z"}',
        ],
      ],
    });
    await world.analytics.insert({
      table: "backfills",
      columns: ["stream", "logPartition", "mode", "meter", "meterVersion", "ver"],
      rows: [[1, partition, "live", "later", 1, BEHIND_EVENTS]],
    });
  }
  await progress(world.analytics, { logClockAt: NOON, nextOffset: 2_000_000 });
});
afterAll(() => world.close());

async function given(event: Partial<UsageEvent> & { occurredAt: number }): Promise<Counted> {
  number += 1;
  const whole = { mode: "live", customer: "acme", source: "api", id: `evt-${number}`, ...event } as const;
  const entry = counted({ offset: number, partition: partitionOfEvent(whole, STREAM.partitionCount) }, whole);
  await store(world.analytics, [entry], []);
  return entry;
}
const pathOf = ({ event }: Counted): string =>
  `/v1/usage/events/${encodeURIComponent(event.source)}/${encodeURIComponent(event.id)}?customer=${encodeURIComponent(event.customer)}`;
interface Found {
  readonly asOf: string;
  readonly records: { status: string; reason: string; meaning: string; countedIn: { meter: string; lane: string }[] }[];
  readonly corrections: { kind: string; state: string }[];
  readonly ledger: { state: string; quantity: string; meter: string }[];
}
const find = async (entry: Counted): Promise<Found> => (await world.get(pathOf(entry))).body as unknown as Found;

describe("find", () => {
  it("G1 G7 shows where it is, what became of it and what it counts in", async () => {
    const entry = await given({
      occurredAt: NOON - 3_600_000 + 7,
      data: { inputTokens: "12345678901.000000001", model: "small" },
    });
    const { status, body } = await world.get(pathOf(entry));
    const window = { windowStart: "2026-11-20T11:00:00Z", windowEnd: "2026-11-20T11:15:00Z" };
    const common = { version: 1, ...window, value: null, lane: "live" };
    expect([status, body]).toEqual([
      200,
      {
        mode: "live",
        customer: "acme",
        source: "api",
        id: entry.event.id,
        asOf: "2026-11-20T12:00:00Z",
        hasMore: false,
        records: [
          {
            record: { stream: 1, partition: entry.partition, offset: entry.offset },
            acceptedAt: "2026-11-20T11:00:00.007Z",
            bookedAt: "2026-11-20T11:00:00.007Z",
            occurredAt: "2026-11-20T11:00:00.007Z",
            type: "llm.request",
            status: "counted",
            reason: "",
            meaning: "counted",
            payload: '{"inputTokens":"12345678901.000000001","model":"small"}',
            countedIn: [
              { ...common, meter: "calls", quantity: "1", dimensions: {} },
              { ...common, meter: "ended", quantity: "12345678901.000000001", dimensions: {} },
              { ...common, meter: "later", quantity: "12345678901.000000001", dimensions: {}, lane: "backfill" },
              { ...common, meter: "models", quantity: null, value: "small", dimensions: {} },
              { ...common, meter: "tokens", quantity: "12345678901.000000001", dimensions: { model: "small" } },
            ],
          },
        ],
        corrections: [],
        ledger: [],
      },
    ]);
  });

  it("leaves out meters that begin later, have ended, or cannot read it", async () => {
    const meters = async (event: Partial<UsageEvent> & { occurredAt: number }): Promise<string[]> =>
      (await find(await given(event))).records.flatMap(({ countedIn }) => countedIn.map(({ meter }) => meter));
    expect(await meters({ occurredAt: NOON - 3_600_001 })).toEqual(["ended", "later", "tokens"]);
    expect(await meters({ occurredAt: NOON - 1_800_001 })).toEqual(["calls", "ended", "later", "tokens"]);
    expect(await meters({ occurredAt: NOON - 1_800_000 })).toEqual(["calls", "later", "tokens"]);
    expect(await meters({ occurredAt: NOON - 1_800_000, type: "other" })).toEqual([]);
    expect(await meters({ occurredAt: NOON - 1_800_000, data: { inputTokens: "many" } })).toEqual(["calls"]);
  });

  it("shows every record of the identity, each once and in order, with its fate in words", async () => {
    const entry = await given({ occurredAt: NOON - 60_000 });
    const { mode, customer, source, id, type } = entry.event;
    const row = { mode, customer, source, id, type, payload: "{}", partition: entry.partition };
    const fates = ["duplicate", "conflict", "too_late", "too_early", "redirected", "invalid"];
    for (const [index, status] of fates.entries()) {
      const copy = {
        ...row,
        offset: 700_000 + index,
        bookedAt: NOON + index,
        status,
        reason: index === 5 ? "TIME_INVALID" : "",
      };
      await rawRow(world.analytics, copy);
      // What a replay wrote twice is one record.
      await rawRow(world.analytics, copy);
    }
    const { records } = await find(entry);
    expect(records.map(({ status }) => status)).toEqual(["counted", ...fates]);
    expect(new Set(records.map(({ meaning }) => meaning)).size).toBe(7);
    expect(records.at(-1)?.meaning).toContain("TIME_INVALID");
    expect(records.slice(1).flatMap(({ countedIn }) => countedIn)).toEqual([]);
  });

  it("shows corrections with their state, and what a meter behind the correction never saw", async () => {
    const entry = await given({ occurredAt: NOON - 60_000 });
    const body = {
      customer: "acme",
      reason: "r",
      actor: "kim",
      event: { type: "llm.request", data: { inputTokens: 3 } },
    };
    const { body: made } = await world.post(`/admin/v1/events/api/${entry.event.id}/replace`, body);
    expect((await find(entry)).corrections).toMatchObject([{ kind: "replace", state: "pending" }]);
    await drain(world);
    await fold(world);
    const found = await find(entry);
    expect(found.corrections).toMatchObject([{ kind: "replace", state: "applied" }]);
    expect(found.records[0]?.meaning).toBe("counted, and taken back by a correction since");
    // Activated before the correction, so the backfill had it, and the correction took it back.
    expect(found.records[0]?.countedIn.map(({ meter }) => meter)).toEqual(["calls", "later", "tokens"]);
    const { id } = made["after"] as { id: string };
    const next = await find({ ...entry, event: { ...entry.event, id } });
    expect(next.records).toMatchObject([{ status: "counted", reason: "replace" }]);
    expect(next.records[0]?.countedIn.map(({ meter, lane }) => `${meter} ${lane}`)).toEqual([
      "calls live",
      "later live",
      "not_yet live",
      "tokens live",
    ]);
  });

  it("names the ledger rows of its hour and meters, and their state at Stripe", async () => {
    const entry = await given({ occurredAt: NOON - 60_000, customer: "billed" });
    await world.control.execute(`
      INSERT INTO stripe_meter_map (mode, stripe_account, feed_id, meter, meter_version, event_name, stripe_meter_id, state, idempotency_key, created_at)
        SELECT 'live', 'acct', meter || '_v1', meter, 1, 'th_' || meter || '_v1', 'mtr_' || meter, 'active', meter, now()
        FROM unnest(ARRAY['tokens', 'calls', 'other']) AS meter;
      INSERT INTO stripe_customer_map (mode, stripe_account, customer_id, stripe_customer_id, state, idempotency_key, key_created_at, created_at)
        SELECT 'live', 'acct', customer, 'cus_' || customer, 'active', customer, now(), now() FROM unnest(ARRAY['billed', 'acme']) AS customer;
    `);
    const ledger = ({ meter = "tokens", customer = "billed", at = NOON - HOUR_MS, state = "accepted" }) =>
      world.control.query(
        `INSERT INTO usage_report (mode, stripe_account, customer_id, stripe_customer_id, feed_id, stripe_meter_id, event_name,
           formula, period_start, period_end, bucket_start, bucket_end, kind, accounts_at, event_ts, seq, quantity, value, identifier, state)
         VALUES ('live', 'acct', $1, 'cus_' || $1, $2 || '_v1', 'mtr_' || $2, 'th_' || $2 || '_v1', 'sum', $3, $3, $3, $3, 'usage',
           $3::timestamptz + interval '1 minute', $3, 0, 12.5, 12.5, gen_random_uuid()::text, $4)`,
        [customer, meter, new Date(at), state],
      );
    await ledger({});
    await ledger({ meter: "calls", state: "planned" });
    await ledger({ at: NOON, state: "planned" });
    await ledger({ at: NOON - 2 * HOUR_MS });
    await ledger({ meter: "other" });
    await ledger({ customer: "acme" });
    const found = await find(entry);
    expect(found.ledger.map(({ meter, state, quantity }) => `${meter} ${state} ${quantity}`)).toEqual([
      "tokens accepted 12.500000000",
      "calls planned 12.500000000",
    ]);
  });

  it("says how fresh a no is, and shows one mode and customer alone", async () => {
    const entry = await given({ occurredAt: NOON - 60_000 });
    const wrong = await world.get(pathOf({ ...entry, event: { ...entry.event, customer: "acme2" } }));
    expect([wrong.status, wrong.body["code"]]).toEqual([404, "EVENT_UNKNOWN"]);
    expect(wrong.body["detail"]).toContain(`received none before ${formatInstant(NOON)}`);
    expect((await world.get(pathOf(entry), "test")).status).toBe(404);
    const query = await world.get("/v1/usage/events/api/a?source=b");
    expect([query.status, query.body["problems"]]).toEqual([
      400,
      [{ field: "source", rule: "is in the path already" }],
    ]);
    expect((await world.get("/v1/usage/events?colour=red")).body["code"]).toBe("QUERY_INVALID");
  });

  it("finds by query what no path can carry; the source is api unless it is named", async () => {
    const odd = await given({ occurredAt: NOON - 60_000, source: "..", id: "a/../b" });
    const found = await world.get("/v1/usage/events?customer=acme&source=..&id=a%2F..%2Fb");
    expect((found.body["records"] as { record: object }[])[0]?.record).toMatchObject({ offset: odd.offset });
    const plain = await given({ occurredAt: NOON - 60_000 });
    expect((await world.get(`/v1/usage/events?customer=acme&id=${plain.event.id}`)).status).toBe(200);
  });
});

describe("the index on id", () => {
  it("skips the granules of a customer that hold other ids", async () => {
    await world.analytics.execute(
      `INSERT INTO raw_events (stream, logPartition, logOffset, mode, customer, source, id, type, occurredAt, receivedAt, bookedAt, decidedAt, status, reason, payloadHash, payload)
       SELECT 1, 0, 800000 + number, 'live', 'large', 'api', concat('many-', toString(number)), 'llm.request',
         toDateTime64('2026-11-20 10:00:00', 3, 'UTC'), toDateTime64('2026-11-20 10:00:00', 3, 'UTC'),
         toDateTime64('2026-11-20 10:00:00', 3, 'UTC'), toDateTime64(0, 3, 'UTC'), 'counted', '', 0, '{}'
       FROM numbers(200000)`,
    );
    const params = { mode: "live", customer: "large", source: "api", id: "many-77777", status: "", rowsMax: 10 };
    const plan = await world.analytics.select<{ explain: string }>(`EXPLAIN indexes = 1 ${RAW_ROWS_SQL}`, params);
    const text = plan.map(({ explain }) => explain).join("\n");
    const [, primary = "0"] = /PrimaryKey[^]*?Granules: (\d+)\//.exec(text) ?? [];
    const [, left = "99", seen] = /Name: by_id[^]*?Granules: (\d+)\/(\d+)/.exec(text) ?? [];
    expect([Number(primary) > 20, seen]).toEqual([true, primary]);
    // One holds it; one in a hundred of the others is a false alarm of the bloom filter.
    expect(Number(left)).toBeLessThanOrEqual(3);
  });
});
