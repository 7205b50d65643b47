import { readFileSync } from "node:fs";
import type { StatementDocument } from "@tallyhouse/billing";
import {
  DAY_MS,
  formatQuantity,
  HOUR_MS,
  type MeterVersion,
  parseQuantity,
  quantityFromScaled,
} from "@tallyhouse/domain";
import { rateBill } from "@tallyhouse/pricing";
import { createMetrics } from "@tallyhouse/runtime";
import { Dice, meterVersion } from "@tallyhouse/testkit";
import { TestLog, type TestUsage } from "@tallyhouse/usage/test-log";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { manualClock } from "../test-support.ts";
import { openStores, type Stores } from "../test-support/ports.ts";
import { applyPlans, ask, assign, resetStatements, startStatements, statementsOf, STREAM } from "./test-statements.ts";

const NOVEMBER = Date.UTC(2026, 10, 1);
const DECEMBER = Date.UTC(2026, 11, 1);
const CUT = DECEMBER + HOUR_MS;

const METERS: readonly MeterVersion[] = [
  meterVersion({ meter: "tokens", rule: { value: "/tokens", dimensions: { model: "/model" } } }),
  meterVersion({ meter: "calls", rule: { aggregation: "count", value: undefined } }),
  meterVersion({ meter: "seats", rule: { aggregation: "unique_count", value: "/user" } }),
  meterVersion({ meter: "peak", rule: { aggregation: "max", value: "/tokens" } }),
  meterVersion({ meter: "level", rule: { aggregation: "latest", value: "/tokens" } }),
];
const METER_VERSIONS = { tokens: 1, calls: 1, seats: 1, peak: 1, level: 1 };
const PLANS = `
defaults: {currency: usd, interval: month}
plans:
  pro:
    price: "49"
    items:
      large: {meter: tokens, where: {model: l}, included: "1000", policy: overage, price: {model: graduated, tiers: [{upTo: "5000", unit: "0.01"}, {upTo: inf, unit: "0.007"}]}}
      small: {meter: tokens, where: {model: s}, policy: overage, price: {model: volume, tiers: [{upTo: "20000", unit: "0.002"}, {upTo: inf, unit: "0.001"}]}}
      calls: {meter: calls, policy: overage, price: {model: package, size: "100", price: "0.5"}}
      seats: {meter: seats, policy: overage, price: {model: per_unit, unit: "3"}}
      peak: {meter: peak, policy: overage, price: {model: per_unit, unit: "0.1"}}
      level: {meter: level, policy: overage, price: {model: per_unit, unit: "0.05"}}
`;

const DOCUMENT = readFileSync(new URL("../../../../docs/analytics.md", import.meta.url), "utf8");
const REVENUE_QUERIES = [...DOCUMENT.matchAll(/^```sql\n([\s\S]*?)^```$/gm)].slice(10).map(([, sql = ""]) => sql);

let stores: Stores;
beforeAll(async () => {
  stores = await openStores();
});
afterAll(() => stores.close());
beforeEach(async () => {
  await stores.reset();
  await resetStatements(stores);
  await stores.analytics.execute("TRUNCATE TABLE raw_events");
  await stores.analytics.execute("TRUNCATE TABLE rollup_uniq");
});

/** A log with the meters activated and folded from before the first period on. */
async function openLog(meters = METERS): Promise<TestLog> {
  const log = new TestLog(stores.analytics, STREAM);
  for (const version of meters) log.everywhere(NOVEMBER - 40 * DAY_MS, { kind: "meter.activate", version });
  await log.store();
  for (const version of meters) for (const partition of log.partitions.keys()) await log.backfill(partition, version);
  return log;
}

function usage(customer: string, occurredAt: number, data: TestUsage["data"]): TestUsage {
  return { mode: "live", customer, occurredAt, data };
}

async function passTo(log: TestLog, at: number): Promise<void> {
  log.everywhere(at, { kind: "tick" });
  await log.store(1_000);
}

/** Sums of the analysts' table, by customer and line. */
async function ratedSums(): Promise<Record<string, string>> {
  const rows = await stores.analytics.select<{ customer: string; line: string; figures: string }>(
    `SELECT customer, line, concat(toString(sum(quantity)), ' ', toString(sum(amount))) AS figures
     FROM rated_lines WHERE mode = 'live' GROUP BY customer, line ORDER BY customer, line`,
  );
  return Object.fromEntries(rows.map(({ customer, line, figures }) => [`${customer} ${line}`, figures]));
}

function withoutZeros(decimal: string): string {
  return decimal.replace(/\.?0+$/, "");
}

function figuresOf(document: StatementDocument): Record<string, string> {
  const figures = document.lines.map(({ key, quantity, amount }): [string, string] => [
    `${document.customer} ${key}`,
    `${quantity} ${withoutZeros(amount)}`,
  ]);
  return Object.fromEntries(figures.filter(([, text]) => text !== "0 0"));
}

/** Everything that still counts of the customer's period as known at the cut, folded in the dullest way, then rated. */
function recount(
  log: TestLog,
  of: { customer: string; cutAt: number; document: StatementDocument },
): Record<string, string> {
  const { customer, cutAt, document } = of;
  const voided = log.partitions.map(
    ({ records }) =>
      new Set(records.flatMap(({ fact, bookedAt }) => ("target" in fact && bookedAt < cutAt ? [fact.target] : []))),
  );
  const events = log.partitions.flatMap(({ records }, partition) =>
    records.flatMap(({ fact, bookedAt }, offset) =>
      "usage" in fact && bookedAt < cutAt && voided[partition]?.has(offset) === false
        ? [{ ...fact.usage, partition, offset }]
        : [],
    ),
  );
  const mine = events
    .filter((event) => event.customer === customer && event.occurredAt >= NOVEMBER && event.occurredAt < DECEMBER)
    .toSorted((a, b) => a.occurredAt - b.occurredAt || a.partition - b.partition || a.offset - b.offset);
  const tokens = mine.map(({ data }) => ({ value: parseQuantity(String(data["tokens"])) ?? 0n, model: data["model"] }));
  const sumOf = (model: string): bigint =>
    tokens.filter((one) => one.model === model).reduce((sum, { value }) => sum + value, 0n);
  const totals: Record<string, bigint> = {
    large: sumOf("l"),
    small: sumOf("s"),
    calls: BigInt(mine.length) * 10n ** 9n,
    seats: BigInt(new Set(mine.map(({ data }) => data["user"])).size) * 10n ** 9n,
    peak: tokens.reduce((max, { value }) => (value > max ? value : max), 0n),
    level: tokens.at(-1)?.value ?? 0n,
  };
  const items = Object.entries(totals).map(([item, scaled]) => ({ item, quantity: quantityFromScaled(scaled) }));
  const bill = rateBill(document.plan, items, { startAt: NOVEMBER, endAt: DECEMBER });
  return figuresOf({ ...document, lines: bill.lines });
}

describe("a statement", () => {
  it("G3: is sealed once its cut has passed, the oldest period first, and the same whoever seals it", async () => {
    const clock = manualClock(CUT + DAY_MS);
    const log = await openLog();
    await applyPlans(stores.control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER - 40 * DAY_MS });
    await assign(stores.control, { customer: "acme", plan: "pro", fromAt: NOVEMBER - 31 * DAY_MS });
    await assign(stores.control, { customer: "idle", plan: "pro", fromAt: NOVEMBER });
    log.append(0, NOVEMBER, {
      kind: "usage",
      usage: usage("acme", NOVEMBER, { tokens: "1500.5", model: "l", user: "a" }),
    });
    log.append(1, DECEMBER, {
      kind: "usage",
      usage: usage("acme", DECEMBER - 1, { tokens: "7", model: "s", user: "b" }),
    });
    log.append(1, DECEMBER + 1, { kind: "usage", usage: usage("acme", DECEMBER, { tokens: "1000000", model: "s" }) });
    await passTo(log, CUT - 1);
    expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 1 });
    await passTo(log, CUT);
    expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 2, adjusted: 0, lined: 2 });
    const sealed = await statementsOf(stores.control);
    expect(sealed.map(({ customer, period, cut, total }) => [customer, period.start, cut, total])).toEqual([
      ["acme", "2026-10-01T00:00:00Z", "2026-11-01T01:00:00Z", "49.00"],
      // 500.5 × 0.01, 7 × 0.002, a package of calls, two seats, a peak of 1500.5, a level of 7.
      ["acme", "2026-11-01T00:00:00Z", "2026-12-01T01:00:00Z", "210.92"],
      ["idle", "2026-11-01T00:00:00Z", "2026-12-01T01:00:00Z", "49.00"],
    ]);
    expect(sealed[1]?.versionVector).toEqual({ stream: 1, offsets: [7, 8] });
    expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 0, lined: 0 });
    await resetStatements(stores);
    await applyPlans(stores.control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER - 40 * DAY_MS });
    await assign(stores.control, { customer: "acme", plan: "pro", fromAt: NOVEMBER - 31 * DAY_MS });
    await assign(stores.control, { customer: "idle", plan: "pro", fromAt: NOVEMBER });
    clock.advance(DAY_MS);
    await startStatements({ ...stores, clock }).runOnce();
    expect(await statementsOf(stores.control)).toEqual(sealed);
  });

  it("is never changed or deleted", async () => {
    const clock = manualClock(CUT);
    const log = await openLog();
    await applyPlans(stores.control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER - 40 * DAY_MS });
    await assign(stores.control, { customer: "acme", plan: "pro", fromAt: NOVEMBER });
    await passTo(log, CUT);
    await startStatements({ ...stores, clock }).runOnce();
    const { control } = stores;
    await expect(control.query("DELETE FROM statement")).rejects.toThrow(/never changed/);
    await expect(control.query("UPDATE statement SET total = 0")).rejects.toThrow(/never changed/);
    const copy =
      "INSERT INTO statement SELECT 'st_x', mode, customer_id, 7, period_start, period_end, plan_key, plan_version";
    const forged = `${copy}, contract_version, currency, cut_at, total, '{}', digest, sealed_at, lined_at FROM statement`;
    await expect(control.query(forged)).rejects.toThrow(/statement_has_its_digest/);
  });

  it("one customer who cannot be billed holds up no other, and is told of", async () => {
    const clock = manualClock(CUT);
    const metrics = createMetrics();
    const log = await openLog();
    const { control } = stores;
    await applyPlans(control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER });
    const odd = `
defaults: {currency: usd, interval: month}
plans:
  odd: {price: "1", items: {calls: {meter: nobody, policy: overage, price: {model: per_unit, unit: "1"}}}}
`;
    await applyPlans(control, { file: odd, meterVersions: { nobody: 1 }, at: NOVEMBER });
    await assign(control, { customer: "a", plan: "odd", fromAt: NOVEMBER });
    await assign(control, { customer: "b", plan: "pro", fromAt: NOVEMBER });
    await passTo(log, CUT + HOUR_MS);
    expect(await startStatements({ ...stores, clock, metrics }).runOnce()).toMatchObject({ sealed: 1 });
    const text = await metrics.metrics();
    expect(text).toContain('tallyhouse_reporter_unsealed_periods{mode="live",reason="unknown_meter"} 1');
    expect(text).toContain('tallyhouse_reporter_oldest_unsealed_seconds{mode="live"} 3600');
    expect(text).toContain('tallyhouse_reporter_sealed_statements_total{mode="live",kind="statement"} 1');
  });
});

describe("after the seal", () => {
  it("G3 G4: late usage, voids and replacements of 1 % of a month become adjustments that equal a full recompute", async () => {
    const dice = new Dice(7);
    const clock = manualClock(CUT);
    const log = await openLog();
    await applyPlans(stores.control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER - 40 * DAY_MS });
    const customers = ["acme", "bolt"];
    for (const customer of customers) await assign(stores.control, { customer, plan: "pro", fromAt: NOVEMBER });
    const some = (occurredAt: number): TestUsage =>
      usage(dice.pick(customers), occurredAt, {
        tokens: formatQuantity(BigInt(dice.below(50_000_000_000))),
        model: dice.pick(["l", "s", "other"]),
        user: `u${dice.below(30)}`,
      });
    const events: { partition: number; offset: number; usage: TestUsage }[] = [];
    for (let index = 0; index < 2_000; index += 1) {
      const occurredAt = NOVEMBER + Math.floor((index * 30 * DAY_MS) / 2_000);
      const partition = dice.below(2);
      const one = some(occurredAt);
      events.push({ partition, offset: log.append(partition, occurredAt, { kind: "usage", usage: one }), usage: one });
    }
    await passTo(log, CUT);
    expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 2, adjusted: 0 });
    const original = await statementsOf(stores.control);
    // Ten usage events change and ten come late, on each of three days.
    let bookedAt = CUT;
    for (let day = 1; day <= 3; day += 1) {
      for (let change = 0; change < 10; change += 1) {
        bookedAt += 60_000;
        const [target] = events.splice(dice.below(events.length), 1);
        if (target === undefined) continue;
        const replacement = some(target.usage.occurredAt);
        log.append(
          target.partition,
          bookedAt,
          change % 2 === 0
            ? { kind: "void", target: target.offset }
            : { kind: "replace", target: target.offset, usage: { ...replacement, customer: target.usage.customer } },
        );
        log.append(dice.below(2), bookedAt, { kind: "usage", usage: some(NOVEMBER + dice.below(30 * 86_400) * 1_000) });
      }
      // Each partition's clock goes on together.
      bookedAt = DECEMBER + day * DAY_MS + HOUR_MS;
      await passTo(log, bookedAt);
      expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 0, adjusted: 2, lined: 2 });
      expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ adjusted: 0 });
    }
    const all = await statementsOf(stores.control);
    expect(all.filter(({ seq }) => seq === 0)).toEqual(original);
    const cutAt = DECEMBER + 3 * DAY_MS;
    for (const customer of customers) {
      const chain = all.filter((one) => one.customer === customer);
      expect(chain.map(({ seq }) => seq)).toEqual([0, 1, 2, 3]);
      const newest = chain.at(-1);
      if (newest === undefined) throw new Error("no statement");
      expect(newest.cut).toBe("2026-12-04T00:00:00Z");
      expect(figuresOf(newest)).toEqual(recount(log, { customer, cutAt, document: newest }));
      const minor = chain.reduce((sum, one) => sum + BigInt((one.difference ?? one).totalMinor), 0n);
      expect(minor.toString()).toBe(newest.totalMinor);
      const sums = Object.fromEntries(Object.entries(await ratedSums()).filter(([name]) => name.startsWith(customer)));
      expect(sums).toEqual(figuresOf(newest));
    }
  });

  it("what changes nothing makes no adjustment", async () => {
    const clock = manualClock(CUT);
    const log = await openLog();
    await applyPlans(stores.control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER });
    await assign(stores.control, { customer: "acme", plan: "pro", fromAt: NOVEMBER });
    const same = usage("acme", NOVEMBER + DAY_MS, { tokens: "5", model: "l", user: "a" });
    const target = log.append(0, NOVEMBER + DAY_MS, { kind: "usage", usage: same });
    await passTo(log, CUT);
    await startStatements({ ...stores, clock }).runOnce();
    log.append(0, CUT + HOUR_MS, { kind: "replace", target, usage: same });
    await passTo(log, CUT + DAY_MS);
    expect(await startStatements({ ...stores, clock }).runOnce()).toMatchObject({ sealed: 0, adjusted: 0 });
    const open = await stores.control.query("SELECT 1 FROM rerate WHERE done_at IS NULL");
    expect(open).toEqual([]);
    expect(await stores.control.query("SELECT 1 FROM rerate")).toHaveLength(1);
  });

  it("an operator's request rates it by another plan version or meter version, and later usage follows that", async () => {
    const clock = manualClock(CUT);
    const { control } = stores;
    const log = await openLog();
    await applyPlans(control, { file: PLANS, meterVersions: METER_VERSIONS, at: NOVEMBER });
    await assign(control, { customer: "acme", plan: "pro", fromAt: NOVEMBER });
    const used = { tokens: "2000", model: "l", user: "a", billable: "40" };
    log.append(0, NOVEMBER + DAY_MS, { kind: "usage", usage: usage("acme", NOVEMBER + DAY_MS, used) });
    await passTo(log, CUT);
    await startStatements({ ...stores, clock }).runOnce();
    const [statement] = await statementsOf(control);
    if (statement === undefined) throw new Error("no statement");
    await applyPlans(control, { file: PLANS.replace('"49"', '"40"'), meterVersions: METER_VERSIONS, at: DECEMBER });
    await applyPlans(control, {
      file: PLANS.replace("currency: usd", "currency: eur"),
      meterVersions: METER_VERSIONS,
      at: DECEMBER,
    });
    const again = () => startStatements({ ...stores, clock }).runOnce();
    await ask(control, { statement: statement.id, plan: { key: "pro", version: 2 } });
    expect(await again()).toMatchObject({ adjusted: 1, lined: 1 });
    await ask(control, { statement: statement.id, plan: { key: "pro", version: 3 } });
    expect(await again()).toMatchObject({ adjusted: 0 });
    await ask(control, { statement: statement.id, plan: { key: "pro", version: 9 } });
    expect(await again()).toMatchObject({ adjusted: 0 });
    // A corrected meter: its usage of November is folded from what stands in front of its activation.
    const corrected = meterVersion({
      meter: "tokens",
      version: 2,
      rule: { value: "/billable", dimensions: { model: "/model" } },
    });
    log.everywhere(CUT + 2 * HOUR_MS, { kind: "meter.activate", version: corrected });
    await log.store();
    await ask(control, { statement: statement.id, meterVersions: { tokens: 2 } });
    // At the newest cut the version is not known yet, and then not folded yet.
    expect(await again()).toMatchObject({ adjusted: 0 });
    await passTo(log, CUT + 3 * HOUR_MS);
    expect(await again()).toMatchObject({ adjusted: 0 });
    for (const partition of log.partitions.keys()) await log.backfill(partition, corrected);
    expect(await again()).toMatchObject({ adjusted: 1 });
    log.append(0, CUT + 4 * HOUR_MS, { kind: "usage", usage: usage("acme", NOVEMBER + 2 * DAY_MS, used) });
    await passTo(log, CUT + 2 * DAY_MS);
    expect(await again()).toMatchObject({ adjusted: 1 });
    const chain = await statementsOf(control);
    const large = chain.map(({ lines }) => lines.find(({ key }) => key === "large")?.quantity);
    expect(chain.map(({ seq, plan, reason }, index) => [seq, plan.plan, large[index], reason])).toEqual([
      [0, "pro@1", "2000", null],
      [1, "pro@2", "2000", "the price was wrong"],
      [2, "pro@2", "40", "the price was wrong"],
      [3, "pro@2", "80", null],
    ]);
    expect(chain[1]?.difference).toMatchObject({ lines: [{ key: "fee" }], total: "-9.00" });
    expect(chain[3]?.plan.items[0]).toMatchObject({ meter: "tokens", meterVersion: 2 });
    // The two questions about money in docs/analytics.md.
    const [byPlan = "", byLine = ""] = REVENUE_QUERIES;
    const december = { month: "2026-12-01", plan: "pro", currency: "usd" };
    const amount = withoutZeros(chain.at(-1)?.total ?? "");
    expect(await stores.analytics.select(byPlan)).toMatchObject([{ ...december, fees: "40", amount }]);
    expect(await stores.analytics.select(byLine)).toMatchObject([
      { customer: "acme", line: "calls", quantity: "1" },
      { customer: "acme", line: "fee", amount: "-9", adjustments: 1 },
      { customer: "acme", line: "large", quantity: "-1920", adjustments: 3 },
    ]);
    const refusals = await control.query<{ refusal: string }>(
      "SELECT refusal FROM rerate WHERE refusal IS NOT NULL ORDER BY id",
    );
    expect(refusals.map(({ refusal }) => refusal)).toEqual([
      "the plan is in eur, the statement in usd",
      "there is no such plan version, or it needs a contract",
    ]);
  });
});

/** The process died: nothing of it runs any more. */
class Crash extends Error {}

/** Ports that die at the n-th effect, before it or after it (effect done, answer lost). Reads change nothing, so no death there counts. */
function dyingPorts(death: { at: number; moment: "before" | "after" } | null): Pick<Stores, "analytics" | "control"> & {
  readonly effects: string[];
} {
  const effects: string[] = [];
  let isDead = false;
  async function step<Result>(name: string, effect: () => Promise<Result>): Promise<Result> {
    if (isDead) throw new Crash(name);
    effects.push(name);
    isDead = effects.length === death?.at;
    if (isDead && death?.moment === "before") throw new Crash(name);
    const result = await effect();
    if (isDead) throw new Crash(name);
    return result;
  }
  const { analytics, control } = stores;
  return {
    effects,
    analytics: { ...analytics, insert: (rows) => step(`insert ${rows.table}`, () => analytics.insert(rows)) },
    control: {
      ...control,
      query: <Row>(sql: string, params?: readonly unknown[]) =>
        /^\s*(INSERT|UPDATE)/.test(sql)
          ? step(`${/\w+/.exec(sql)?.[0]} ${/(statement_look|statement|rerate)/.exec(sql)?.[0]}`, () =>
              control.query<Row>(sql, params),
            )
          : control.query<Row>(sql, params),
      transaction: <Result>(body: Parameters<typeof control.transaction<Result>>[0]) =>
        step("transaction", () => control.transaction(body)),
    },
  };
}

describe("a process that dies at any effect", () => {
  it.each(["before", "after"] as const)(
    "G1 G2 G4 %s it: one statement, one adjustment, every line once",
    async (moment) => {
      const clock = manualClock(CUT);
      const log = await openLog(METERS.slice(0, 1));
      const { control } = stores;
      const file = `
defaults: {currency: usd, interval: month}
plans:
  one: {price: "5", items: {large: {meter: tokens, policy: overage, price: {model: per_unit, unit: "0.01"}}}}
`;
      await applyPlans(control, { file, meterVersions: METER_VERSIONS, at: NOVEMBER });
      const hits = new Set<string>();
      /** Lives until nothing is left to do; the first one dies at the n-th effect. */
      const live = async (at: number): Promise<boolean> => {
        const ports = dyingPorts({ at, moment });
        const isHit = await startStatements({ ...ports, clock })
          .runOnce()
          .then(
            () => false,
            (error: unknown) => {
              if (!(error instanceof Crash)) throw error;
              return true;
            },
          );
        if (isHit) hits.add(ports.effects.at(-1) ?? "");
        await startStatements({ ...stores, clock }).runOnce();
        return isHit;
      };
      // One month and customer for each death, in a log that goes on.
      for (let at = 1, startAt = NOVEMBER, isHit = true; isHit; at += 1) {
        const endAt = Date.UTC(2026, 10 + at, 1);
        const customer = `c${at}`;
        await control.execute("TRUNCATE rerate, statement, statement_look");
        await stores.analytics.execute("TRUNCATE TABLE rated_line");
        await control.query("UPDATE customer_assignment SET superseded_at = now()");
        await assign(control, { customer, plan: "one", fromAt: startAt });
        const used = { kind: "usage", usage: usage(customer, startAt + DAY_MS, { tokens: "100" }) } as const;
        const target = log.append(0, startAt + 5 * DAY_MS, used);
        await passTo(log, endAt + HOUR_MS);
        const isSealHit = await live(at);
        log.append(0, endAt + 2 * HOUR_MS, { kind: "void", target });
        log.append(0, endAt + 2 * HOUR_MS, {
          kind: "usage",
          usage: usage(customer, startAt + 2 * DAY_MS, { tokens: "40" }),
        });
        await passTo(log, endAt + 2 * DAY_MS);
        isHit = (await live(at)) || isSealHit;
        const chain = await statementsOf(control);
        expect(chain.map(({ seq, total, difference }) => [seq, total, difference?.total])).toEqual([
          [0, "6.00", undefined],
          [1, "5.40", "-0.60"],
        ]);
        expect(await ratedSums()).toEqual({ [`${customer} fee`]: "1 5", [`${customer} large`]: "40 0.4" });
        expect(await control.query("SELECT 1 FROM rerate WHERE done_at IS NULL")).toEqual([]);
        expect(await control.query("SELECT 1 FROM statement WHERE lined_at IS NULL")).toEqual([]);
        startAt = endAt;
      }
      expect([...hits].toSorted()).toEqual([
        "INSERT statement_look",
        "UPDATE statement",
        "insert rated_line",
        "transaction",
      ]);
    },
  );
});
