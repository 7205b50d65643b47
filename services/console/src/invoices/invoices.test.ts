/** Statements explained over HTTP, on the real engine: edges of the period inside windows, late usage, voids before and after the cut. */
import {
  buildAdjustment,
  buildStatement,
  countPeriod,
  statementDigest,
  type StatementDocument,
  type StatementFacts,
  statementText,
} from "@tallyhouse/billing";
import { DAY_MS, formatQuantity, HOUR_MS, parseQuantity, quantityFromScaled } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { readDefinitions } from "@tallyhouse/usage";
import { TestLog, type TestUsage } from "@tallyhouse/usage/test-log";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openTestConsole, STREAM, type TestConsole } from "../test-support.ts";

const START = Date.UTC(2026, 10, 1, 9, 7, 30);
const END = Date.UTC(2026, 11, 1, 9, 7, 30);
const CUT = Date.UTC(2026, 11, 1, 10, 15);
const LATER_CUT = CUT + 2 * DAY_MS;
const METERS = [
  meterVersion({ meter: "tokens", rule: { value: "/tokens", dimensions: { model: "/model", region: "/region" } } }),
  meterVersion({ meter: "peak", rule: { aggregation: "max", value: "/tokens", dimensions: { model: "/model" } } }),
  meterVersion({ meter: "seats", rule: { aggregation: "unique_count", value: "/user" } }),
];
const item = (key: string, meter: string, where = {}) => ({
  key,
  meter,
  meterVersion: 1,
  where,
  included: null,
  price: { model: "per_unit", unit: "0.01" } as const,
});
const PLAN = {
  plan: "pro@1",
  currency: "usd",
  fee: "49",
  items: [
    item("large", "tokens", { model: ["l"] }),
    item("small_eu", "tokens", { model: ["s"], region: ["eu"] }),
    item("peak_small", "peak", { model: ["s"] }),
    item("seats", "seats"),
  ],
};

interface Page {
  readonly data: readonly Readonly<Record<string, string>>[];
  readonly next: string | null;
  readonly quantity: string;
}

let world: TestConsole;
let log: TestLog;
let first: StatementDocument;
let second: StatementDocument;

beforeAll(async () => {
  world = await openTestConsole(LATER_CUT + HOUR_MS);
  log = new TestLog(world.analytics, STREAM);
  for (const version of METERS) log.everywhere(START - 40 * DAY_MS, { kind: "meter.activate", version });
  await log.store();
  for (const version of METERS) for (const partition of log.partitions.keys()) await log.backfill(partition, version);
  appendMonth();
  await log.store(50);
  first = await seal(CUT, null);
  second = await seal(LATER_CUT, first);
});
afterAll(() => world.close());

function use(occurredAt: number, number: number): TestUsage {
  const data = {
    tokens: `${number}.5`,
    user: `user ${number % 7}`,
    model: number % 3 === 0 ? "l" : "s",
    region: number % 2 === 0 ? "eu" : "us",
  };
  return { mode: "live", customer: "acme", occurredAt, data };
}

/** 300 usage events in the period, at its first and last millisecond too, and around it; voided before the cut and behind it; late. */
function appendMonth(): void {
  const places: { partition: number; offset: number }[] = [];
  const occurred = Array.from({ length: 298 }, (_, number) => START + Math.floor(((END - START) * number) / 298));
  for (const [number, at] of [START - 1, ...occurred, END - 1, END].entries()) {
    const partition = Math.floor((number * 4) / 301);
    places.push({ partition, offset: log.append(partition, at + 2_000, { kind: "usage", usage: use(at, number) }) });
  }
  const correct = (number: number, bookedAt: number): void => {
    const { partition, offset } = places[number] ?? { partition: 0, offset: 0 };
    log.append(partition, bookedAt, { kind: "void", target: offset });
  };
  for (const number of [10, 90, 200]) correct(number, END + 600_000);
  for (const number of [11, 91, 201]) correct(number, CUT + 600_000);
  for (const partition of [0, 1])
    log.append(partition, CUT + HOUR_MS, { kind: "usage", usage: use(START + 5 * DAY_MS + partition, 999) });
  log.everywhere(LATER_CUT, { kind: "tick" });
}

async function seal(cutAt: number, previous: StatementDocument | null): Promise<StatementDocument> {
  const definitions = await readDefinitions(world.analytics, STREAM, { mode: "live" });
  const question = {
    mode: "live",
    customer: "acme",
    period: { startAt: START, endAt: END },
    cutAt,
    plan: PLAN,
  } as const;
  const count = await countPeriod(world.analytics, { watermarkAt: LATER_CUT, definitions }, question);
  if (count.kind !== "counted") throw new Error(JSON.stringify(count));
  const facts: StatementFacts = {
    ...question,
    ...count,
    period: { startAt: START, endAt: END, anchorAt: START, interval: "month", isCutShort: false },
    closing: { latenessSeconds: 3_600, bookingWindowSeconds: 900 },
    versionVector: { stream: 1, offsets: [900, 900, 900, 900] },
  };
  const before =
    previous === null
      ? null
      : { document: previous, text: "", digest: statementDigest(statementText(previous)), sealedAt: 0 };
  const document =
    before === null ? buildStatement(facts) : buildAdjustment(facts, { previous: before, reason: null, actor: null });
  if (document === null) throw new Error("no difference");
  const text = statementText(document);
  await world.control.query(
    `INSERT INTO statement (id, mode, customer_id, seq, period_start, period_end, plan_key, plan_version, currency, cut_at, total,
       body, digest, sealed_at)
     VALUES ($1, 'live', 'acme', $2::int, $3::timestamptz, $4::timestamptz, 'pro', 1, 'usd', $5::timestamptz, $6::text::numeric,
       $7::text::json, $8, $5::timestamptz)`,
    [
      document.id,
      document.seq,
      document.period.start,
      document.period.end,
      document.cut,
      document.total,
      text,
      statementDigest(text),
    ],
  );
  return document;
}

const explain = (id: string, query = "") => world.get(`/v1/invoices/${id}/explain?${query}`);

async function pages(id: string, query: string): Promise<{ rows: Page["data"]; quantity: string; pages: number }> {
  const rows: Page["data"][number][] = [];
  let cursor = "";
  for (let count = 1; ; count += 1) {
    const { status, body, text } = await explain(id, `${query}${cursor}`);
    expect(status, text).toBe(200);
    const page = body as unknown as Page;
    rows.push(...page.data);
    if (page.next === null) return { rows, quantity: page.quantity, pages: count };
    cursor = `&cursor=${page.next}`;
  }
}

function sumOf(rows: Page["data"], name: "quantity" | "value"): string {
  return formatQuantity(
    quantityFromScaled(rows.reduce((sum, row) => sum + (parseQuantity(row[name] ?? "") ?? 0n), 0n)),
  );
}

describe("GET /v1/invoices", () => {
  it("lists periods, newest first, each with its adjustments", async () => {
    const { body } = await world.get("/v1/invoices?customer=acme");
    expect(body).toMatchObject({
      customer: "acme",
      next: null,
      asOf: "2026-12-03T10:15:00Z",
      data: [
        {
          id: first.id,
          total: first.total,
          adjustedTotal: second.total,
          adjustments: [{ id: second.id, seq: 1, difference: second.difference?.total }],
        },
      ],
    });
    expect((await world.get("/v1/invoices?customer=acme&before=2026-11-01T09:07:30Z")).body).toMatchObject({
      data: [],
    });
    expect((await world.get("/v1/invoices?customer=other")).body).toMatchObject({ data: [] });
    expect((await world.get("/v1/invoices?customer=acme", "test")).body).toMatchObject({ data: [] });
  });
});

describe("GET /v1/invoices/{id}/explain", () => {
  it("G8: says every line's price, rule and steps, with cut, version vector and digest", async () => {
    const { body } = await explain(first.id);
    expect(body).toMatchObject({
      id: first.id,
      asOf: "2026-12-01T10:15:00Z",
      digest: statementDigest(statementText(first)),
      versionVector: first.versionVector,
      plan: "pro@1",
      total: first.total,
      lines: [
        { key: "fee", amount: "49.00" },
        {
          key: "large",
          price: { model: "per_unit", unit: "0.01" },
          where: { model: ["l"] },
          rule: { meter: "tokens", version: 1, aggregation: "sum" },
          events: 98,
          steps: first.lines[1]?.steps,
        },
        { key: "small_eu" },
        { key: "peak_small" },
        { key: "seats", quantity: "7" },
      ],
    });
  });

  it("G8: windows add up to the line and usage events to each window, as known at each statement's cut", async () => {
    for (const statement of [first, second]) {
      for (const key of ["large", "small_eu"]) {
        const line = statement.lines.find((one) => one.key === key);
        const windows = await pages(statement.id, `line=${key}`);
        expect(windows.quantity).toBe(line?.quantity);
        expect(sumOf(windows.rows, "quantity")).toBe(line?.quantity);
        const events = await pages(statement.id, `line=${key}&window=all&limit=40`);
        expect(events.pages).toBeGreaterThan(1);
        expect(sumOf(events.rows, "value")).toBe(line?.quantity);
        const ends = [windows.rows[0], windows.rows.at(-1), windows.rows[20]];
        for (const window of ends) {
          const inside = await pages(statement.id, `line=${key}&window=${window?.["start"]}`);
          expect(sumOf(inside.rows, "value")).toBe(window?.["quantity"]);
        }
      }
    }
    // Three voids and two late usage events lie between the cuts.
    expect(second.lines.map(({ quantity }) => quantity)).not.toEqual(first.lines.map(({ quantity }) => quantity));
  });

  it("G8: a window that the period cuts holds its part alone", async () => {
    const { rows } = await pages(first.id, "line=seats");
    expect(rows[0]).toMatchObject({ start: "2026-11-01T09:07:30Z", end: "2026-11-01T09:15:00Z", quantity: "1" });
    expect(rows.at(-1)).toMatchObject({ start: "2026-12-01T09:00:00Z", end: "2026-12-01T09:07:30Z" });
    const { rows: events } = await pages(first.id, "line=seats&window=2026-12-01T09:00:00Z");
    expect(events.map(({ occurredAt }) => occurredAt)).toEqual(["2026-12-01T09:07:29.999Z"]);
  });

  it("G8: the largest window of a filtered max line is the line", async () => {
    const line = first.lines.find(({ key }) => key === "peak_small");
    const { rows } = await pages(first.id, "line=peak_small");
    const largest = rows.map(({ quantity }) => parseQuantity(quantity ?? "") ?? 0n).reduce((a, b) => (a > b ? a : b));
    expect(formatQuantity(largest)).toBe(line?.quantity);
  });

  it("answers CSV, and names the next page in a header", async () => {
    const head = { authorization: "Bearer svc_live_th_0123456789abcdef" };
    const get = (query: string) =>
      world.app.inject({ url: `/v1/invoices/${first.id}/explain?format=csv&${query}`, headers: head });
    const statement = await get("");
    expect(statement.headers["content-type"]).toBe("text/csv; charset=utf-8");
    expect(statement.payload.split("\r\n")[1]).toBe(`${first.id},fee,,,1,0,0,1,0,inf,1,49,0,49,49.00,usd`);
    const events = await get("line=large&window=all&limit=2");
    const [header, row] = events.payload.split("\r\n");
    expect(header).toBe("id,line,source,event,occurredAt,receivedAt,bookedAt,place,dim.model,dim.region,value");
    expect(row).toMatch(/,l,(?:eu|us),\d+\.5$/);
    expect(events.headers["x-next-cursor"]).toMatch(/^\d+\.1\.\d\.\d+$/);
  });

  it("refuses what it cannot answer, by field", async () => {
    const rules = async (query: string): Promise<unknown> => {
      const { status, body } = await explain(first.id, query);
      return [status, (body["problems"] as { field: string }[] | undefined)?.map(({ field }) => field)];
    };
    expect(await rules("line=none")).toEqual([400, ["line"]]);
    expect(await rules("line=fee")).toEqual([400, ["line"]]);
    expect(await rules("window=all")).toEqual([400, ["window"]]);
    expect(await rules("line=large&window=2026-11-01T09:00:00Z")).toEqual([400, ["window"]]);
    expect(await rules("line=large&window=2026-11-01T09:16:00Z")).toEqual([400, ["window"]]);
    expect(await rules("line=large&window=2026-12-01T09:15:00Z")).toEqual([400, ["window"]]);
    expect(await rules("line=large&window=all&cursor=1.2")).toEqual([400, ["cursor"]]);
    expect(await rules("line=large&cursor=2027-01-01T00:00:00Z")).toEqual([400, ["cursor"]]);
    expect(await rules("line=large&limit=10001&format=xml&of=me")).toEqual([400, ["limit", "format", "of"]]);
  });

  it("knows nothing of another mode's or another customer's statement", async () => {
    for (const id of [`st_${"a".repeat(26)}`, "st_none", "%00", "%F0%9F%92%A9"])
      expect(await explain(id)).toMatchObject({ status: 404, body: { code: "STATEMENT_UNKNOWN" } });
    expect((await world.get("/v1/invoices?customer=%00")).status).toBe(400);
    for (const path of ["explain", "export"]) {
      expect((await world.get(`/v1/invoices/${first.id}/${path}?customer=other`)).status).toBe(404);
      expect((await world.get(`/v1/invoices/${first.id}/${path}`, "test")).status).toBe(404);
      expect((await world.app.inject({ url: `/v1/invoices/${first.id}/${path}` })).statusCode).toBe(401);
    }
  });
});

describe("GET /v1/invoices/{id}/export", () => {
  it("G8: streams the statement's own text, each of its usage events once, and an end", async () => {
    const answer = await world.app.inject({
      url: `/v1/invoices/${second.id}/export?customer=acme`,
      headers: { authorization: "Bearer svc_live_th_0123456789abcdef" },
    });
    expect(answer.headers["content-type"]).toBe("application/x-ndjson");
    const lines = answer.payload.trimEnd().split("\n");
    expect(lines[0]).toContain(statementText(second));
    expect(lines).toHaveLength(second.totals.reduce((sum, { events }) => sum + events, 2));
    expect(JSON.parse(lines.at(-1) ?? "")).toEqual({ end: { events: lines.length - 2 } });
  });

  it("410 when the usage events are gone, and the statement stays", async () => {
    log.everywhere(END + 400 * DAY_MS, { kind: "tick" });
    await log.store();
    expect(await explain(first.id, "line=large&window=all")).toMatchObject({
      status: 410,
      body: { code: "EVENTS_EXPIRED" },
    });
    expect((await world.get(`/v1/invoices/${first.id}/export`)).status).toBe(410);
    expect((await explain(first.id)).status).toBe(200);
  });
});
