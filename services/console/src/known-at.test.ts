/** Figures as known at a cut, figures that still grow, and the number of different values: as callers see them. */
import { HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  activate,
  counted,
  FIRST_EVENT_OFFSET,
  LIVE_TOKEN,
  openTestConsole,
  progress,
  store,
  STREAM,
  type TestConsole,
} from "./test-support.ts";

const DAY = Date.UTC(2026, 10, 20);
const WATERMARK = DAY + 12 * HOUR_MS + 5 * MINUTE_MS;
const users = meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } });
const largest = meterVersion({ meter: "largest", rule: { aggregation: "max", dimensions: { region: "/region" } } });
const growing = meterVersion({ meter: "growing" });
const RANGE = "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z";

let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(WATERMARK);
  await world.post("/admin/v1/meters/apply?wait=0s", { meters: [users, largest, growing].map(({ rule }) => rule) });
  for (const meter of [users, largest]) await activate(world.analytics, meter);
  await activate(world.analytics, growing, FIRST_EVENT_OFFSET);
  const event = (ms: number, inputTokens: number, user: string | number): Parameters<typeof counted>[1] => ({
    ...{ occurredAt: DAY + ms, customer: "acme", data: { inputTokens, user, region: "eu" } },
  });
  await store(
    world.analytics,
    [
      counted({ offset: 1, partition: 0 }, event(HOUR_MS, 5, "a")),
      counted({ offset: 2, partition: 0 }, event(HOUR_MS + 1, 50, "b")),
      counted({ offset: 3, partition: 0 }, event(12 * HOUR_MS + 1, 7, "a")),
    ],
    [users, largest, growing],
  );
  await voidAt({ offset: 2, bookedAt: DAY + 12 * HOUR_MS });
  await progress(world.analytics, { logClockAt: WATERMARK });
});
afterAll(() => world.close());

/** What a void at this instant stores: its control record, and a rollup row of its booking window. */
async function voidAt({ offset, bookedAt }: { offset: number; bookedAt: number }): Promise<void> {
  const target = FIRST_EVENT_OFFSET + offset;
  const place = [STREAM.streamId, 0];
  await world.analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: [[...place, FIRST_EVENT_OFFSET + 500, bookedAt, "void", String(target), "{}"]],
  });
  for (const { meter, rule } of [users, largest]) {
    const dims = Object.keys(rule.dimensions).map(() => "eu");
    await world.analytics.insert({
      table: "rollup",
      columns: [
        ...["mode", "customer", "meter", "meterVersion", "windowStart", "dims", "stream", "logPartition", "lane"],
        ...["bookedStart", "ver", "counted", "voided", "sumQty", "minQty", "maxQty", "lastQty", "lastAt", "lastOffset"],
      ],
      rows: [
        [
          "live",
          "acme",
          meter,
          1,
          (DAY + HOUR_MS) / 1_000,
          dims,
          ...place,
          0,
          bookedAt / 1_000,
          target + 9,
          0,
          1,
          "-50",
          0,
          0,
          0,
          0,
          0,
        ],
      ],
    });
  }
}

const usage = (query: string) => world.get(`/v1/usage?customer=acme&${RANGE}&${query}`);
const quantityOf = ({ body }: { body: Record<string, unknown> }): unknown =>
  (body["data"] as { quantity: string }[]).map(({ quantity }) => quantity);

describe("GET /v1/usage?knownAt=", () => {
  it("G3: answers as known at the last cut, and says which", async () => {
    const now = await usage("meter=largest");
    expect([quantityOf(now), now.body["asOf"]]).toEqual([["7"], "2026-11-20T12:05:00Z"]);
    const then = await usage("meter=largest&knownAt=2026-11-20T12:04:00%2B00:00");
    expect([then.status, quantityOf(then), then.body["asOf"]]).toEqual([200, ["50"], "2026-11-20T12:00:00Z"]);
  });

  it("refuses what is not sealed, and names the watermark", async () => {
    const { status, body } = await usage("meter=largest&knownAt=2026-11-20T12:15:00Z");
    expect([status, body["code"]]).toEqual([409, "USAGE_NOT_SEALED"]);
    expect(body["detail"]).toMatch(/the watermark is 2026-11-20T12:05:00Z.*2026-11-20T12:15:00Z/);
    const backfill = await usage("meter=growing&knownAt=2026-11-20T12:00:00Z");
    expect([backfill.status, backfill.body["code"]]).toEqual([409, "USAGE_NOT_SEALED"]);
    expect(backfill.body["detail"]).toMatch(/in front of the meter's activation/);
    expect((await usage("meter=largest&knownAt=yesterday")).body["problems"]).toMatchObject([{ field: "knownAt" }]);
  });
});

describe("backfilling", () => {
  it("is said while usage in front of an activation is being counted, in JSON and on the page", async () => {
    expect((await usage("meter=growing")).body["backfilling"]).toBe(true);
    expect((await usage("meter=largest")).body).not.toHaveProperty("backfilling");
    expect((await world.get(`/v1/usage/customers?meter=growing&${RANGE}`)).body["backfilling"]).toBe(true);
    const said = "earlier usage is still being counted";
    expect((await world.app.inject({ url: "/?meter=growing" })).payload).toContain(said);
    expect((await world.app.inject({ url: "/?meter=largest" })).payload).not.toContain(said);
  });
});

describe("unique_count", () => {
  it("is the number of different values over the row, in JSON, CSV, by customer and on the page", async () => {
    // Of the window with the void only "a" counts, and "a" again at noon.
    expect(quantityOf(await usage("meter=users"))).toEqual(["1"]);
    expect(quantityOf(await usage("meter=users&window=hour"))).toEqual(["1", "1"]);
    expect(quantityOf(await usage("meter=users&knownAt=2026-11-20T12:00:00Z"))).toEqual(["2"]);
    expect(quantityOf(await world.get(`/v1/usage?customer=nobody&meter=users&${RANGE}`))).toEqual(["0"]);
    const headers = { authorization: `Bearer ${LIVE_TOKEN}`, accept: "text/csv" };
    const csv = await world.app.inject({ url: `/v1/usage?customer=acme&${RANGE}&meter=users`, headers });
    expect(csv.payload).toContain("acme,users,1,tokens,2026-11-20T00:00:00Z,2026-11-21T00:00:00Z,1,");
    const customers = await world.get(`/v1/usage/customers?meter=users&${RANGE}`);
    expect(customers.body["data"]).toEqual([{ customer: "acme", quantity: "1" }]);
    const page = (await world.app.inject({ url: "/?meter=users" })).payload;
    expect(page).toMatch(/class="total">1 </);
  });
});
