/** Requests to rate a closed period anew, through the routes on a real control store. */
import { buildStatement, statementDigest, statementText } from "@tallyhouse/billing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { storePlan } from "../customers/test-plans.ts";
import { openTestConsole, type TestConsole } from "../test-support.ts";

const NOW = Date.UTC(2026, 11, 20);
const WHO = { actor: "kim", reason: "the price was wrong" };
const PERIOD = { startAt: Date.UTC(2026, 10, 1), endAt: Date.UTC(2026, 11, 1) };

let world: TestConsole;
let statement: string;

beforeAll(async () => {
  world = await openTestConsole(NOW);
  await storePlan(world.control, { key: "pro", version: 1, createdAt: 0 });
  await storePlan(world.control, { key: "pro", version: 2, createdAt: 1, price: "40" });
  await storePlan(world.control, { key: "secret", version: 1, createdAt: 1, mode: "test" });
  await world.control.query(
    `INSERT INTO meter_version (mode, key, version, digest, rule, unit, active_from, created_at, created_by)
     VALUES ('live', 'calls', 2, 'd', '{}', 'calls', now(), now(), 'test'), ('live', 'other', 1, 'd', '{}', 'x', now(), now(), 'test')`,
  );
  statement = await seal();
});
afterAll(() => world.close());

/** A statement as the reporter seals it. */
async function seal(): Promise<string> {
  const item = { key: "calls", meter: "calls", meterVersion: 1, where: {}, included: null, price: null };
  const document = buildStatement({
    mode: "live",
    customer: "acme",
    period: { ...PERIOD, anchorAt: PERIOD.startAt, interval: "month", isCutShort: false },
    closing: { latenessSeconds: 3_600, bookingWindowSeconds: 900 },
    cutAt: PERIOD.endAt + 3_600_000,
    versionVector: { stream: 1, offsets: [1] },
    plan: { plan: "pro@1", currency: "usd", fee: "49", items: [item] },
    rules: [{ meter: "calls", version: 1, aggregation: "count", dimensions: [] }],
    items: [],
  });
  const text = statementText(document);
  await world.control.query(
    `INSERT INTO statement (id, mode, customer_id, seq, period_start, period_end, plan_key, plan_version, currency, cut_at, total,
       body, digest, sealed_at)
     VALUES ($1, 'live', 'acme', 0, $2, $3, 'pro', 1, 'usd', $4, 49, $5::text::json, $6, now())`,
    [document.id, document.period.start, document.period.end, document.cut, text, statementDigest(text)],
  );
  return document.id;
}

const ask = (body: object, mode: "live" | "test" = "live", id = statement) =>
  world.post(`/admin/v1/invoices/${id}/rerate`, { ...WHO, ...body }, mode);

describe("rating a statement anew", () => {
  it("refuses what is wrong, naming the field and the rule", async () => {
    const answer = await ask({ plan: "pro@9", meterVersions: { calls: 7, other: 1 } });
    expect(answer).toMatchObject({
      status: 400,
      body: {
        code: "RERATE_INVALID",
        problems: [
          { field: "/plan", rule: "pro@9 is no plan version of this mode" },
          { field: "/meterVersions/calls", rule: "the meter has no version 7 in this mode" },
        ],
      },
    });
    expect(await ask({ meterVersions: { other: 1 } })).toMatchObject({
      body: { problems: [{ field: "/meterVersions/other", rule: "no item of pro@1 uses the meter" }] },
    });
    expect(await ask({ plan: "pro", actor: "kim@example.com", price: "1" })).toMatchObject({
      body: { problems: [{ field: "/plan" }, { field: "/actor" }, { field: "/price" }] },
    });
    expect(await ask({ plan: "secret@1" })).toMatchObject({ status: 400 });
    expect(await world.control.query("SELECT 1 FROM rerate")).toEqual([]);
  });

  it("knows the statements and requests of its own mode alone", async () => {
    expect(await ask({}, "test")).toMatchObject({ status: 404, body: { code: "STATEMENT_UNKNOWN" } });
    expect(await ask({}, "live", "st_none")).toMatchObject({ status: 404, body: { code: "STATEMENT_UNKNOWN" } });
    expect(await ask({}, "live", "st_%00")).toMatchObject({ status: 404, body: { code: "STATEMENT_UNKNOWN" } });
    expect(await ask({ meterVersions: { "\u0000": 1 } })).toMatchObject({ status: 400 });
    expect(await world.get("/admin/v1/rerates/77")).toMatchObject({ status: 404, body: { code: "RERATE_UNKNOWN" } });
    expect(await world.get("/admin/v1/rerates/x")).toMatchObject({ status: 404 });
  });

  it("writes one request with its audit, the same when repeated, and refuses another until it is done", async () => {
    const wanted = { plan: "pro@2", meterVersions: { calls: 2 } };
    const made = await ask(wanted);
    expect(made).toMatchObject({ status: 202, body: { state: "waiting", statement, ...wanted, ...WHO } });
    expect(await ask(wanted)).toMatchObject({ status: 200, body: { id: made.body["id"] } });
    expect(await ask({ plan: "pro@1" })).toMatchObject({ status: 409, body: { code: "RERATE_WAITING" } });
    const place = `/admin/v1/rerates/${String(made.body["id"])}`;
    expect(await world.get(place)).toMatchObject({ status: 200, body: made.body });
    expect(await world.get(place, "test")).toMatchObject({ status: 404 });
    const log = await world.get("/admin/v1/audit-log?subject=customer/acme");
    expect(log.body["changes"]).toMatchObject([
      { action: "statement.rerate", after: { statement, ...wanted }, ...WHO },
    ]);
    await world.control.query("UPDATE rerate SET done_at = now(), refusal = 'expired: gone'");
    expect(await world.get(place)).toMatchObject({ body: { state: "refused", refusal: "expired: gone" } });
    expect(await ask({ plan: "pro@1" })).toMatchObject({ status: 202 });
    await world.control.query("UPDATE rerate SET done_at = now() WHERE done_at IS NULL");
  });
});
