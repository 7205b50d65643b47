/** Which usage no plan covers, found and let go again, on real stores. */
import { type ControlStore, DAY_MS, HOUR_MS, type Mode, parseInstant, WINDOW_MS } from "@tallyhouse/domain";
import { createMetrics } from "@tallyhouse/runtime";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createPipeline, manualClock, type ManualClock, type Pipeline } from "../test-support.ts";
import { openStores, type Stores } from "../test-support/ports.ts";
import { createUnbilled } from "./unbilled.ts";

const BOOKING_MS = 900_000;
let stores: Stores;
let clock: ManualClock;
let pipeline: Pipeline;

beforeAll(async () => {
  stores = await openStores();
});
afterAll(() => stores.close());
afterEach(() => stores.reset());

const at = (text: string): number => parseInstant(`${text}Z`) ?? Number.NaN;

async function begin(): Promise<void> {
  await stores.control.execute("TRUNCATE customer, customer_contact, customer_assignment, customer_contract");
  clock = manualClock(at("2026-11-20T10:00:00"));
  pipeline = createPipeline(stores.analytics, clock);
}

async function customer(id: string, mode: Mode = "live", billing: string | null = null): Promise<void> {
  await stores.control.query(
    `INSERT INTO customer (mode, customer_id, name, zone, billing, created_at, created_by) VALUES ($1, $2, 'Acme', 'UTC', $3, now(), 'kim')`,
    [mode, id, billing],
  );
}

async function assign(id: string, from: string, plan: string | null): Promise<void> {
  await stores.control.query(
    `INSERT INTO customer_assignment (mode, customer_id, effective_at, plan_key, anchor_at, decided_at, actor, reason)
     VALUES ('live', $1, $2::timestamptz, $3, $2::timestamptz, now(), 'kim', 'test')`,
    [id, `${from}Z`, plan],
  );
}

const use = (id: string, text: string, mode: Mode = "live"): Promise<void> =>
  pipeline.use([{ customer: id, at: at(text), quantity: "1", meter: "calls", mode }]);

/** One look with nothing in memory of the one before, as after a restart; the metric it leaves. */
async function look(given: { control?: ControlStore; backfillingSince?: number } = {}): Promise<string[]> {
  const metrics = createMetrics();
  const { control = stores.control, backfillingSince = null } = given;
  const totals = { backfillingSince: () => Promise.resolve(backfillingSince) };
  const { analytics } = stores;
  await createUnbilled({ analytics, control, totals, metrics, bookingWindowMs: BOOKING_MS }).look(clock.now());
  const text = await metrics.metrics();
  return text.split("\n").flatMap((line) => {
    const match = /^tallyhouse_reporter_unbilled_customers\{mode="(\w+)",reason="(\w+)"\} ([1-9]\d*)$/.exec(line);
    return match === null ? [] : [`${match[1]} ${match[2]} ${match[3]}`];
  });
}

async function listed(): Promise<string[]> {
  const rows = await stores.control.query<{
    mode: string;
    customer_id: string;
    gap_at: Date;
    first_at: Date;
    last_at: Date;
  }>("SELECT mode, customer_id, gap_at, first_at, last_at FROM unbilled ORDER BY mode, customer_id, gap_at");
  const short = (date: Date): string => date.toISOString().slice(0, 16);
  return rows.map((row) => `${row.mode} ${row.customer_id} ${short(row.first_at)}/${short(row.last_at)}`);
}

test("usage of a customer that nobody created is listed, and of one without a plan, in its own mode", async () => {
  await begin();
  await customer("known");
  await use("known", "2026-11-20T08:20:00");
  await use("stranger", "2026-11-18T23:59:59");
  await use("stranger", "2026-11-20T00:00:00");
  await use("known", "2026-11-20T09:00:00", "test");
  expect(await look()).toEqual(["live no_customer 1", "live no_plan 1", "test no_customer 1"]);
  expect(await listed()).toEqual([
    "live known 2026-11-20T08:15/2026-11-20T08:30",
    "live stranger 2026-11-18T23:45/2026-11-20T00:15",
    "test known 2026-11-20T09:00/2026-11-20T09:15",
  ]);
  // Created meanwhile: the reason is read, not kept.
  await customer("stranger");
  expect(await look()).toEqual(["live no_plan 2", "test no_customer 1"]);
});

test("later usage widens what is listed, and usage that a plan covers is never listed", async () => {
  await begin();
  await customer("covered");
  await assign("covered", "2026-11-01T00:00:00", "pro");
  await use("covered", "2026-11-20T08:20:00");
  await use("free", "2026-11-20T08:20:00");
  await look();
  clock.advance(HOUR_MS);
  await use("free", "2026-11-20T10:30:00");
  await use("free", "2026-11-19T00:00:00");
  await use("covered", "2026-11-20T10:30:00");
  await look();
  expect(await listed()).toEqual(["live free 2026-11-19T00:00/2026-11-20T10:45"]);
});

test("a plan that covers it lets it go; what lies before the plan, or after its end, stays", async () => {
  await begin();
  for (const id of ["whole", "partly", "left"]) await customer(id);
  for (const id of ["whole", "partly", "left"]) {
    for (const text of ["2026-11-02T06:00:00", "2026-11-10T06:00:00", "2026-11-19T06:00:00"]) await use(id, text);
  }
  expect(await look()).toEqual(["live no_plan 3"]);
  await assign("whole", "2026-11-01T00:00:00", "pro");
  await assign("partly", "2026-11-10T06:00:00", "pro");
  await assign("left", "2026-11-05T00:00:00", "pro");
  await assign("left", "2026-11-15T00:00:00", null);
  expect(await look()).toEqual(["live no_plan 2"]);
  const after = [
    "live left 2026-11-02T06:00/2026-11-02T06:15",
    "live left 2026-11-19T06:00/2026-11-19T06:15",
    "live partly 2026-11-02T06:00/2026-11-02T06:15",
  ];
  expect(await listed()).toEqual(after);
  await look();
  expect(await listed()).toEqual(after);
  // The customer comes back: the gap that was open has an end, before the usage in it or behind it.
  await assign("left", "2026-11-19T00:00:00", "pro");
  await look();
  expect(await listed()).toEqual([after[0], after[2]]);
});

test("a decision that another one replaced covers nothing", async () => {
  await begin();
  await customer("acme");
  await use("acme", "2026-11-20T08:20:00");
  await assign("acme", "2026-11-20T00:00:00", "pro");
  await look();
  expect(await listed()).toEqual([]);
  await stores.control.query("UPDATE customer_assignment SET superseded_at = now()");
  await use("acme", "2026-11-20T08:40:00");
  await look();
  expect(await listed()).toEqual(["live acme 2026-11-20T08:15/2026-11-20T08:45"]);
});

test("a window that a plan begins in is neither here nor there", async () => {
  await begin();
  await customer("acme");
  await assign("acme", "2026-11-20T08:20:30", "pro");
  await use("acme", "2026-11-20T08:16:00");
  await look();
  expect(await listed()).toEqual([]);
  await use("acme", "2026-11-20T08:14:59");
  await look();
  expect(await listed()).toEqual(["live acme 2026-11-20T08:00/2026-11-20T08:15"]);
});

test("nobody means to bill a customer whose billing is none", async () => {
  await begin();
  await customer("ours", "live", "none");
  await use("ours", "2026-11-20T08:20:00");
  expect(await look()).toEqual([]);
  await stores.control.query("UPDATE customer SET billing = NULL");
  expect(await look()).toEqual(["live no_plan 1"]);
});

test("usage that was taken back leaves the list", async () => {
  await begin();
  await use("tpyo", "2026-11-20T08:20:00");
  await use("twice", "2026-11-20T08:20:00");
  await use("twice", "2026-11-20T09:20:00");
  await look();
  clock.advance(HOUR_MS);
  for (const id of ["tpyo", "twice"]) await takeBack(id, "2026-11-20T08:15:00");
  await look();
  expect(await listed()).toEqual(["live twice 2026-11-20T09:15/2026-11-20T09:30"]);
});

test("usage that is backfilled hours after its activation is found", async () => {
  await begin();
  const activatedAt = clock.now();
  clock.advance(5 * HOUR_MS);
  await look({ backfillingSince: activatedAt });
  // Booked at the activation, stored five hours later.
  await createPipeline(stores.analytics, manualClock(activatedAt)).use([
    { customer: "early", at: activatedAt - 3 * DAY_MS, quantity: "1", meter: "calls", mode: "live" },
  ]);
  await look();
  expect(await listed()).toEqual(["live early 2026-11-17T10:00/2026-11-17T10:15"]);
});

test("G1 a crash after any statement of a look is made good by the next one", async () => {
  let statements = 0;
  for (let isDone = false; !isDone; statements += 1) {
    await stores.reset();
    await begin();
    await customer("partly");
    await use("partly", "2026-11-02T06:00:00");
    await use("partly", "2026-11-19T06:00:00");
    clock.advance(DAY_MS);
    await use("stranger", "2026-11-20T11:00:00");
    // As the look of a day ago left it; a plan was assigned since.
    await stores.control.execute(
      `INSERT INTO unbilled VALUES ('live', 'partly', 'epoch', '2026-11-02T06:00Z', '2026-11-19T06:15Z');
       INSERT INTO unbilled_state VALUES ('live', '2026-11-20T10:00Z'), ('test', '2026-11-20T10:00Z');`,
    );
    await assign("partly", "2026-11-10T06:00:00", "pro");
    isDone = await look({ control: failingAfter(statements) }).then(
      () => true,
      (error: unknown) => {
        expect((error as Error).message).toBe("crash");
        return false;
      },
    );
    // A day later nothing is booked that names those windows: only the look's own start can bring them back.
    clock.advance(DAY_MS);
    await look();
    expect([statements, await listed()]).toEqual([
      statements,
      ["live partly 2026-11-02T06:00/2026-11-02T06:15", "live stranger 2026-11-20T11:00/2026-11-20T11:15"],
    ]);
  }
  expect(statements).toBeGreaterThan(8);
});

test("finds the one customer among many, in some pages", async () => {
  await begin();
  const ids = Array.from({ length: 10_050 }, (_, index) => `c-${String(index).padStart(5, "0")}`);
  await stores.control.query(
    `INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by)
     SELECT 'live', c.id, 'Acme', 'UTC', now(), 'kim' FROM json_to_recordset($1::text::json) AS c (id text)`,
    [JSON.stringify(ids.map((id) => ({ id })))],
  );
  await stores.control.query(
    `INSERT INTO customer_assignment (mode, customer_id, effective_at, plan_key, anchor_at, decided_at, actor, reason)
     SELECT 'live', customer_id, '2026-11-01Z', 'pro', '2026-11-01Z', now(), 'kim', 'test' FROM customer
     WHERE customer_id NOT IN ('c-00003', 'c-10049')`,
  );
  const used = at("2026-11-20T08:20:00");
  await pipeline.use(ids.map((id) => ({ customer: id, at: used, quantity: "1", meter: "calls", mode: "live" })));
  expect(await look()).toEqual(["live no_plan 2"]);
  expect((await listed()).map((text) => text.split(" ")[1])).toEqual(["c-00003", "c-10049"]);
});

/** What the fold writes for a void: the same window, booked now. */
async function takeBack(id: string, windowText: string): Promise<void> {
  const [windowSeconds, bookedSeconds] = [at(windowText) / 1_000, Math.floor(clock.now() / WINDOW_MS) * 900];
  await stores.analytics.insert({
    table: "rollup",
    columns: (
      "mode customer meter meterVersion windowStart dims stream logPartition lane bookedStart ver counted voided " +
      "sumQty minQty maxQty lastQty lastAt lastOffset"
    ).split(" "),
    rows: [["live", id, "calls", 1, windowSeconds, [], 1, 0, 0, bookedSeconds, 99, 0, 1, "-1", 0, 0, 0, 0, 0]],
  });
}

/** The control store of a process that dies after so many statements. */
function failingAfter(statements: number): ControlStore {
  let left = statements;
  const counting = (runner: Pick<ControlStore, "query">): Pick<ControlStore, "query"> => ({
    query: async (sql, params) => {
      if (left === 0) throw new Error("crash");
      left -= 1;
      return runner.query(sql, params);
    },
  });
  return {
    ...stores.control,
    ...counting(stores.control),
    transaction: (body) => stores.control.transaction((tx) => body(counting(tx))),
  };
}
