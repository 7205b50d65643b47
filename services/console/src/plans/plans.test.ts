import { readFileSync } from "node:fs";
import { parsePlansFile } from "@tallyhouse/plans";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openTestConsole, type TestConsole } from "../test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
let world: TestConsole;

const METERS = `schema: tallyhouse.meters/1
meters:
  - {key: calls, eventType: api.request, aggregation: count, dimensions: {model: /model}, from: 2000-01-01T00:00:00Z}
  - {key: tokens, eventType: api.request, aggregation: sum, value: /tokens, from: 2000-01-01T00:00:00Z}
  - {key: peak, eventType: api.request, aggregation: max, value: /seats, dimensions: {site: /site}, from: 2000-01-01T00:00:00Z}
`;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  for (const mode of ["live", "test"] as const)
    await world.post("/admin/v1/meters/apply?wait=0s", { file: METERS }, mode);
});
beforeEach(async () => {
  // What never changes in the product is emptied between tests alone, with its guards off.
  const tables = ["catalogue_version", "admin_audit", "customer_contract", "customer_assignment", "customer"];
  for (const table of tables)
    await world.control.execute(
      `ALTER TABLE ${table} DISABLE TRIGGER USER; DELETE FROM ${table}; ALTER TABLE ${table} ENABLE TRIGGER USER`,
    );
});
afterAll(() => world.close());

const fileOf = (plans: string): string => `schema: tallyhouse.plans/1
defaults: {currency: usd}
plans:
${plans}`;
const PRO = (unit: string): string =>
  `  pro: {price: "49", items: {calls: {meter: calls, policy: overage, price: {model: per_unit, unit: "${unit}"}}}}\n`;
const FREE = `  free: {price: "0", items: {calls: {meter: calls, included: "10", policy: block}}}\n`;

interface Change {
  readonly kind: string;
  readonly key: string;
  readonly change: string;
  readonly version: number;
  readonly text: readonly string[];
}

async function apply(file: string, mode: "live" | "test" = "live"): Promise<string[]> {
  const { status, body } = await world.post(
    "/admin/v1/plans/apply",
    { file, reason: "new prices", actor: "kim" },
    mode,
  );
  expect(body["problems"] ?? []).toEqual([]);
  expect(status).toBe(200);
  return linesOf(body);
}

function linesOf(body: Record<string, unknown>): string[] {
  return (body["changes"] as Change[]).map(({ kind, key, change, version, text }) =>
    [`${kind} ${key} ${change} v${version}`, ...text].join("; "),
  );
}

/** `code: line field: rule` of what an apply refuses. */
async function refusal(file: string): Promise<string[]> {
  const before = await world.control.query("SELECT * FROM catalogue_version ORDER BY kind, key, version");
  const { status, body } = await world.post("/admin/v1/plans/apply", { file, reason: "r", actor: "kim" });
  expect(status).toBeGreaterThanOrEqual(400);
  expect(await world.control.query("SELECT * FROM catalogue_version ORDER BY kind, key, version")).toEqual(before);
  const problems = (body["problems"] ?? []) as { line: number; field: string; rule: string }[];
  return [`${status} ${String(body["code"])}`, ...problems.map(({ line, field, rule }) => `${line} ${field}: ${rule}`)];
}

describe("plans diff and apply", () => {
  it("stores what is new, then finds nothing to do", async () => {
    const file = fileOf(PRO("0.002") + FREE);
    const diff = await world.post("/admin/v1/plans/diff", { file });
    expect(linesOf(diff.body)).toEqual(["plan pro new v1", "plan free new v1"]);
    expect(await apply(file)).toEqual(["plan pro new v1", "plan free new v1"]);
    expect(await apply(file)).toEqual(["plan pro none v1", "plan free none v1"]);
    const { body } = await world.get("/admin/v1/plans");
    expect(body).toMatchObject({
      mode: "live",
      endpoints: null,
      bundles: [],
      plans: [
        { key: "free", version: 1, createdBy: "kim", meterVersions: { calls: 1 }, plan: { currency: "usd" } },
        { key: "pro", version: 1, createdAt: "2026-11-20T12:00:00Z", plan: { interval: "month", billing: "stripe" } },
      ],
    });
  });

  it("tells a change field by field, and a digest that comes back is a new version", async () => {
    await apply(fileOf(PRO("0.002")));
    expect(await apply(fileOf(PRO("0.0015")))).toEqual([
      "plan pro new-version v2; ~ items.calls.price.unit: 0.002 → 0.0015",
    ]);
    expect(await apply(fileOf(PRO("0.0020")))).toEqual([
      "plan pro new-version v3; ~ items.calls.price.unit: 0.0015 → 0.002",
    ]);
    const { body } = await world.get("/admin/v1/plans/pro");
    const versions = body["versions"] as { version: number; digest: string }[];
    expect(versions.map(({ version }) => version)).toEqual([3, 2, 1]);
    expect(versions[0]?.digest).toBe(versions[2]?.digest);
  });

  it("keeps the order of items, and tells when it changes", async () => {
    const two = (first: string, second: string): string =>
      fileOf(`  pro: {price: "49", items: {${first}, ${second}}}\n`);
    const calls = `z_calls: {meter: calls, included: "5", policy: block}`;
    const tokens = `a_tokens: {meter: tokens, included: "5", policy: block}`;
    await apply(two(calls, tokens));
    const { body } = await world.get("/admin/v1/plans");
    const [pro] = body["plans"] as { plan: { items: object } }[];
    expect(Object.keys(pro?.plan.items ?? {})).toEqual(["z_calls", "a_tokens"]);
    expect(await apply(two(tokens, calls))).toEqual([
      `plan pro new-version v2; ~ items (order): ["z_calls","a_tokens"] → ["a_tokens","z_calls"]`,
    ]);
  });

  it("keeps endpoints and bundles in versions of their own", async () => {
    const file = (cost: number): string =>
      `${fileOf(FREE)}endpoints: [{match: "POST /v1/ml/**", cost: ${cost}}]\nbundles: {top_up: {meter: tokens, units: "1000", price: {usd: "10"}, months: 12}}\n`;
    expect(await apply(file(1))).toEqual(["plan free new v1", "endpoints endpoints new v1", "bundle top_up new v1"]);
    expect(await apply(file(2))).toEqual([
      "plan free none v1",
      "endpoints endpoints new-version v2; ~ [0].cost: 1 → 2",
      "bundle top_up none v1",
    ]);
    expect((await world.get("/admin/v1/plans")).body).toMatchObject({
      endpoints: { version: 2, rules: [{ match: "POST /v1/ml/**", cost: 2, units: { api_calls: 1 } }] },
      bundles: [{ key: "top_up", version: 1, bundle: { meter: "tokens", price: { usd: "10" }, months: 12 } }],
    });
  });

  it("writes each new version into the audit log, and nothing when nothing changes", async () => {
    await apply(fileOf(PRO("0.002") + FREE));
    await apply(fileOf(PRO("0.003") + FREE));
    const rows = await world.control.query<Record<string, unknown>>(
      "SELECT actor, action, subject_id, reason, before -> 'plan' ->> 'key' AS before, after -> 'plan' ->> 'key' AS after FROM admin_audit ORDER BY id",
    );
    const row = { actor: "kim", action: "plan.apply", reason: "new prices" };
    expect(rows).toEqual([
      { ...row, subject_id: "pro", before: null, after: "pro" },
      { ...row, subject_id: "free", before: null, after: "free" },
      { ...row, subject_id: "pro", before: "pro", after: "pro" },
    ]);
  });

  it("is of one mode", async () => {
    await apply(fileOf(PRO("0.002")));
    expect((await world.get("/admin/v1/plans", "test")).body).toEqual({
      mode: "test",
      plans: [],
      endpoints: null,
      bundles: [],
    });
    for (const [key, mode] of [
      ["pro", "test"],
      ["prO", "live"],
      ["%00", "live"],
      ["pro%00", "live"],
    ] as const) {
      const other = await world.get(`/admin/v1/plans/${key}`, mode);
      expect([key, other.status, other.body["code"]]).toEqual([key, 404, "PLAN_UNKNOWN"]);
    }
    expect(await apply(fileOf(PRO("0.5")), "test")).toEqual(["plan pro new v1"]);
  });

  it("of two applies at once makes each version once", async () => {
    const files = ["0.1", "0.2", "0.3", "0.2", "0.1"].map((unit) => fileOf(PRO(unit)));
    await Promise.all(files.map((file) => apply(file)));
    const rows = await world.control.query<{ version: number; digest: string }>(
      "SELECT version, digest FROM catalogue_version ORDER BY version",
    );
    expect(rows.map(({ version }) => version)).toEqual(rows.map((_, index) => index + 1));
    expect(rows.every(({ digest }, index) => digest !== rows[index - 1]?.digest)).toBe(true);
  });

  it("stores nothing of a file when any part of it cannot be stored", async () => {
    await world.control.execute(`CREATE FUNCTION fail_on_pro() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN IF NEW.key = 'pro' THEN RAISE EXCEPTION 'the disk is full'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER fail_on_pro BEFORE INSERT ON catalogue_version FOR EACH ROW EXECUTE FUNCTION fail_on_pro()`);
    const file = fileOf(FREE + PRO("1"));
    const failed = await world.post("/admin/v1/plans/apply", { file, reason: "r", actor: "kim" });
    await world.control.execute("DROP TRIGGER fail_on_pro ON catalogue_version; DROP FUNCTION fail_on_pro()");
    expect(failed.status).toBeGreaterThanOrEqual(500);
    expect(await world.control.query("SELECT * FROM catalogue_version")).toEqual([]);
    expect(await world.control.query("SELECT * FROM admin_audit")).toEqual([]);
    expect(await apply(file)).toEqual(["plan free new v1", "plan pro new v1"]);
  });

  it("dates a version never before its predecessor", async () => {
    await apply(fileOf(PRO("0.002")));
    world.clock.at = NOON - 60_000;
    await apply(fileOf(PRO("0.003")));
    world.clock.at = NOON;
    const { body } = await world.get("/admin/v1/plans/pro");
    const at = "2026-11-20T12:00:00Z";
    expect(body["versions"]).toMatchObject([
      { version: 2, createdAt: at },
      { version: 1, createdAt: at },
    ]);
  });

  it("has rows that nobody edits or deletes", async () => {
    await apply(fileOf(FREE));
    await expect(world.control.query("UPDATE catalogue_version SET version = 2")).rejects.toThrow(/never change/);
    await expect(world.control.query("DELETE FROM catalogue_version")).rejects.toThrow(/never change/);
  });

  it("names every wrong field of the body", async () => {
    const { status, body } = await world.post("/admin/v1/plans/apply", { reason: "", actor: "kim@example.com", x: 1 });
    expect(status).toBe(400);
    expect(body).toMatchObject({ code: "BODY_INVALID" });
    expect((body["problems"] as { field: string }[]).map(({ field }) => field).sort()).toEqual([
      "/actor",
      "/file",
      "/reason",
      "/x",
    ]);
  });
});

describe("examples/plans.yaml", () => {
  const exampleOf = (name: string): string =>
    readFileSync(new URL(`../../../../examples/${name}`, import.meta.url), "utf8");

  it("applies over the meters of examples/meters.yaml, and shows every shape of price", async () => {
    await world.post("/admin/v1/meters/apply?wait=0s", { file: exampleOf("meters.yaml") });
    const changes = await apply(exampleOf("plans.yaml"));
    expect(changes).toHaveLength(11);
    expect(changes.every((change) => change.endsWith(" new v1"))).toBe(true);
    const reading = parsePlansFile(exampleOf("plans.yaml"));
    if (reading.kind === "problems") throw new Error("it has problems");
    const { plans, bundles } = reading.file;
    const items = plans.flatMap((plan) => (plan.items === "custom" ? [] : Object.values(plan.items)));
    const prices = items.flatMap(({ price }) => (price === null ? [] : [price]));
    const shapes = prices.map((price) => (price.model === "package" ? `package ${price.round}` : price.model));
    expect([...new Set(shapes)].toSorted()).toEqual(["graduated", "package down", "package up", "per_unit", "volume"]);
    expect(JSON.stringify(prices)).toContain('"flat":"5"');
    expect([...new Set(items.map(({ policy }) => policy))].toSorted()).toEqual([
      "auto_upgrade",
      "block",
      "overage",
      "throttle",
    ]);
    const charged = items.filter(({ policy }) => policy === "overage");
    expect(charged.some(({ included }) => included !== null)).toBe(true);
    expect(items.some(({ where }) => (where["model"]?.length ?? 0) > 1)).toBe(true);
    // Currencies with two decimals, none and three.
    expect(new Set(plans.map(({ currency }) => currency))).toEqual(new Set(["usd", "jpy", "kwd"]));
    expect(new Set(plans.map(({ interval }) => interval))).toEqual(new Set(["month", "year"]));
    expect(plans.filter(({ price, limits, items: all }) => price === limits && limits === all)).toHaveLength(1);
    const meters = new Set(Object.values(bundles).map(({ meter }) => meter));
    expect(items.some(({ policy, meter }) => policy === "block" && meters.has(meter))).toBe(true);
  });
});

describe("what needs the meters", () => {
  it("is refused all at once, with line and field, and after what is wrong in the file alone", async () => {
    const file = fileOf(`  pro:
    price: "49"
    items:
      a: {meter: nothing, policy: overage, price: {model: per_unit, unit: "1"}}
      b: {meter: calls, where: {colour: red}, included: "1", policy: block}
      c: {meter: peak, where: {site: x}, included: "5", cap: "6", policy: overage, price: {model: per_unit, unit: "1"}}
      d: {meter: peak, where: {site: y}, included: "5", policy: block}
bundles:
  x: {meter: calls, units: "1", price: {usd: "1"}, months: 1}
`);
    expect(await refusal(file)).toEqual([
      "400 PLANS_INVALID",
      '7 plans.pro.items.a.meter: there is no meter "nothing"; declare it with meters apply first',
      '8 plans.pro.items.b.where.colour: is no dimension of "calls"; it has model',
      '9 plans.pro.items.c.where: is only for sum and count; "peak" is a max meter',
      '9 plans.pro.items.c.included: is only for sum and count; "peak" is a max meter',
      '9 plans.pro.items.c.cap: is only for sum and count; "peak" is a max meter',
      '10 plans.pro.items.d.where: is only for sum and count; "peak" is a max meter',
      '10 plans.pro.items.d.included: is only for sum and count; "peak" is a max meter',
      '10 plans.pro.items.d.policy: block is only for sum and count; "peak" is a max meter',
      "12 bundles.x.meter: must be a sum meter, not count",
    ]);
    expect((await refusal(file.replace('price: "49"', "price: 49")))[1]).toMatch(/^5 plans.pro.price: must be decimal/);
  });

  it("a priced item of any meter may do without a quota", async () => {
    const item = `{meter: peak, policy: overage, price: {model: per_unit, unit: "1"}}`;
    expect(await apply(fileOf(`  pro: {price: "49", items: {seats: ${item}}}\n`))).toEqual(["plan pro new v1"]);
  });

  it("an item never changes its meter, not even by way of a version without it", async () => {
    await apply(fileOf(PRO("0.002")));
    await apply(fileOf(`  pro: {price: "49"}\n`));
    const other = `{meter: tokens, included: "1", policy: block}`;
    expect(await refusal(fileOf(`  pro: {price: "49", items: {calls: ${other}}}\n`))).toEqual([
      "409 PLAN_ITEM_METER_CHANGED",
      '4 plans.pro.items.calls.meter: was "calls" in version 1: an item never changes its meter; give it another key',
    ]);
  });
});

describe("plans that customers have", () => {
  async function customer(id: string, plan: string): Promise<void> {
    const at = new Date(NOON - 1_000);
    await world.control.query(
      "INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by) VALUES ('live', $1, $1, 'UTC', $2, 'kim')",
      [id, at],
    );
    await assign(id, plan, NOON - 1_000);
  }
  async function assign(id: string, plan: string | null, effectiveAt: number): Promise<void> {
    await world.control.query(
      `INSERT INTO customer_assignment (mode, customer_id, effective_at, plan_key, anchor_at, decided_at, actor, reason)
       VALUES ('live', $1, $2, $3, $2, $2, 'kim', 'r')`,
      [id, new Date(effectiveAt), plan],
    );
  }

  it("stay in the file; others that are missing are left alone", async () => {
    await apply(fileOf(PRO("0.002") + FREE));
    expect(await apply(fileOf(FREE))).toEqual(["plan free none v1", "plan pro missing v1"]);
    await customer("acme", "pro");
    expect(await refusal(fileOf(FREE))).toEqual([
      "409 PLAN_IN_USE",
      '3 plans: "pro" is missing, and 1 customer is on it: keep it, or move them first',
    ]);
    await assign("acme", "free", NOON + 1_000);
    expect((await refusal(fileOf(FREE)))[0]).toBe("409 PLAN_IN_USE");
    world.clock.at = NOON + 1_000;
    expect(await apply(fileOf(FREE))).toEqual(["plan free none v1", "plan pro missing v1"]);
    await assign("acme", "pro", NOON + 5_000);
    expect((await refusal(fileOf(FREE)))[0]).toBe("409 PLAN_IN_USE");
    world.clock.at = NOON;
  });

  it("keep their currency", async () => {
    const inEuro = fileOf(FREE).replace('price: "0"', 'currency: eur, price: "0"');
    await apply(fileOf(FREE));
    await customer("acme", "free");
    expect(await refusal(inEuro)).toEqual([
      "409 PLAN_IN_USE",
      "4 plans.free.currency: is another than before, and 1 customer is on it: a customer's currency never changes",
    ]);
    await assign("acme", null, NOON);
    expect(await apply(inEuro)).toEqual(["plan free new-version v2; ~ currency: usd → eur"]);
  });

  it("get no custom field while somebody has no contract", async () => {
    const custom = fileOf("  pro: {price: custom}\n");
    await apply(fileOf(PRO("0.002")));
    await customer("acme", "pro");
    await customer("other", "pro");
    const contract = (id: string, overrides: object): Promise<unknown> =>
      world.control.query(
        `INSERT INTO customer_contract (mode, customer_id, version, plan_key, overrides, meter_versions, effective_at, created_at, created_by, reason)
         VALUES ('live', $1, 1, 'pro', $2::text::json, '{}', $3, $3, 'kim', 'r')`,
        [id, JSON.stringify(overrides), new Date(NOON)],
      );
    await contract("acme", { price: "30" });
    const rule = "has custom fields, and 1 customer is on it without a contract: make their contracts first";
    expect(await refusal(custom)).toEqual(["409 PLAN_IN_USE", `4 plans.pro: ${rule}`]);
    await contract("other", { features: { sso: true } });
    const open = "price is custom in the plan: the contract must set it";
    expect(await refusal(custom)).toEqual([
      "409 PLAN_BREAKS_CONTRACT",
      `4 plans.pro: contract 1 of customer "other" would not fit: ${open}`,
    ]);
  });

  it("keep fitting their contracts", async () => {
    const capped = (cap: string): string =>
      fileOf(`  pro:
    price: "49"
    items:
      calls: {meter: calls, included: "5", cap: "${cap}", policy: overage, price: {model: per_unit, unit: "1"}}
`);
    await apply(capped("100"));
    await customer("acme", "pro");
    const contract = (version: number, effectiveAt: number, overrides: object): Promise<unknown> =>
      world.control.query(
        `INSERT INTO customer_contract (mode, customer_id, version, plan_key, overrides, meter_versions, effective_at, created_at, created_by, reason)
         VALUES ('live', 'acme', $1, 'pro', $2::text::json, '{}', $3, $3, 'kim', 'r')`,
        [version, JSON.stringify(overrides), new Date(effectiveAt)],
      );
    await contract(1, NOON - 3_000, { items: { calls: { included: "95" } } });
    await contract(2, NOON - 2_000, { items: { calls: { included: "50" } } });
    await contract(3, NOON + 2_000, { items: { calls: { included: "60" } } });
    expect(await apply(capped("70"))).toEqual(["plan pro new-version v2; ~ items.calls.cap: 100 → 70"]);
    const broken = (version: number, included: string): string =>
      `4 plans.pro: contract ${version} of customer "acme" would not fit: items.calls.cap is 40, less than the included ${included}`;
    expect(await refusal(capped("40"))).toEqual(["409 PLAN_BREAKS_CONTRACT", broken(2, "50"), broken(3, "60")]);
    world.clock.at = NOON + 2_000;
    expect(await refusal(capped("40"))).toEqual(["409 PLAN_BREAKS_CONTRACT", broken(3, "60")]);
    world.clock.at = NOON;
  });
});
