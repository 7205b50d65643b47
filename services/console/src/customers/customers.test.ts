/** Customers, their plans, contracts and the log of changes, through the routes on a real control store. */
import type { Mode } from "@tallyhouse/domain";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openTestConsole, type TestConsole } from "../test-support.ts";
import { assignPlan } from "./assign-plan.ts";
import { createCustomer } from "./customer-store.ts";
import { storeContract } from "./store-contract.ts";
import { storePlan } from "./test-plans.ts";

/** A day whose month has 30 days, with a time of day. */
const NOW = Date.UTC(2026, 10, 20, 12, 34, 56);
const WHO = { actor: "kim", reason: "order 4711" };

let world: TestConsole;
let count = 0;
/** A customer that no other test has. */
let id: string;

beforeAll(async () => {
  world = await openTestConsole(NOW);
  const made = Date.UTC(2026, 0, 1);
  await storePlan(world.control, { key: "pro", version: 1, createdAt: made });
  await storePlan(world.control, { key: "scale", version: 1, createdAt: made, price: "199" });
  await storePlan(world.control, { key: "yearly", version: 1, createdAt: made, interval: "year" });
  await storePlan(world.control, { key: "pro_jp", version: 1, createdAt: made, currency: "jpy" });
  await storePlan(world.control, { key: "enterprise", version: 1, createdAt: made, price: "custom" });
  await storePlan(world.control, { key: "pro", version: 1, createdAt: made, mode: "test", price: "1" });
});
afterAll(() => world.close());
beforeEach(() => {
  world.clock.at = NOW;
  count += 1;
  id = `cust-${count}`;
});

type Answer = { readonly status: number; readonly body: Record<string, unknown> };

const create = (fields: object = {}, mode: Mode = "live"): Promise<Answer> =>
  world.post("/admin/v1/customers", { id, name: "Acme Ltd", ...WHO, ...fields }, mode);
const setPlan = (plan: string | null, more: object = {}): Promise<Answer> =>
  world.post(`/admin/v1/customers/${id}/plan`, { plan, ...WHO, ...more });
const contract = (body: object): Promise<Answer> =>
  world.post(`/admin/v1/customers/${id}/contract`, { plan: "pro", ...WHO, ...body });
const show = async (mode: Mode = "live"): Promise<Record<string, unknown>> =>
  (await world.get(`/admin/v1/customers/${id}`, mode)).body;
const log = async (): Promise<Record<string, unknown>[]> =>
  (await world.get(`/admin/v1/audit-log?subject=customer/${id}`)).body["changes"] as Record<string, unknown>[];
const wrong = ({ body }: Answer): string[] =>
  ((body["problems"] ?? []) as { field: string; rule: string }[]).map(({ field, rule }) => `${field} ${rule}`);

async function change(body: object): Promise<Answer> {
  const headers = { authorization: "Bearer svc_live_th_0123456789abcdef" };
  const url = `/admin/v1/customers/${id}`;
  const answer = await world.app.inject({ method: "PATCH", url, headers, payload: { ...WHO, ...body } });
  return { status: answer.statusCode, body: answer.json() };
}

describe("a customer", () => {
  it("is created once: the same again is known, other fields are a conflict", async () => {
    const contacts = [
      { kind: "technical", email: "ops@acme.test", name: "Ops" },
      { kind: "billing", email: "ar@acme.test" },
    ];
    const made = await create({ zone: "Europe/Berlin", contacts });
    expect(made).toEqual({
      status: 201,
      body: {
        id,
        mode: "live",
        name: "Acme Ltd",
        zone: "Europe/Berlin",
        billing: null,
        contacts: [
          { kind: "billing", name: null, email: "ar@acme.test" },
          { kind: "technical", name: "Ops", email: "ops@acme.test" },
        ],
        createdAt: "2026-11-20T12:34:56Z",
        createdBy: "kim",
      },
    });
    world.clock.at += 5_000;
    expect(await create({ zone: "Europe/Berlin", contacts: contacts.toReversed() })).toEqual({ ...made, status: 200 });
    const other = await create({ zone: "Europe/Paris", contacts });
    expect([other.status, other.body["code"]]).toEqual([409, "CUSTOMER_EXISTS"]);
    expect(await show()).toMatchObject({ zone: "Europe/Berlin", plan: null, currentPeriod: null, assignments: [] });
    expect(await log()).toHaveLength(1);
  });

  it("gets an id where none was given", async () => {
    const [first, second] = [await create({ id: undefined }), await create({ id: undefined })];
    expect(first.body["id"]).toMatch(/^cus_[0-9a-f]{32}$/);
    expect(second.body["id"]).not.toBe(first.body["id"]);
  });

  it("names every wrong field and its rule", async () => {
    const answer = await world.post("/admin/v1/customers", {
      id: "a/../b",
      name: "two\nlines",
      zone: "Mars/Olympus",
      billing: "cash",
      contacts: [{ kind: "boss", email: "nobody" }],
      actor: "kim@acme.test",
      reason: "",
      colour: "red",
    });
    expect([answer.status, answer.body["code"]]).toEqual([400, "CUSTOMER_INVALID"]);
    expect(wrong(answer).toSorted()).toEqual([
      "/actor is the name of an operator, not an e-mail address",
      "/billing must be stripe, none, or null for what the plan says",
      "/colour is not known here",
      "/contacts/0/email must be an e-mail address",
      "/contacts/0/kind must be billing or technical",
      "/id must not have .. beside a slash: no path could carry it",
      "/name must be one line of Unicode text",
      "/reason is required",
      "/zone must be an IANA time zone such as Asia/Kolkata",
    ]);
    expect(wrong(await create({ id: "unbilled" }))).toEqual(["/id is a word that paths need for something else"]);
    expect(wrong(await create({ zone: "+05:30" }))).toHaveLength(1);
  });

  it("is never named by what no id can be", async () => {
    id = "nul%00";
    expect((await show())["code"]).toBe("CUSTOMER_UNKNOWN");
    expect((await change({ name: "x" })).body["code"]).toBe("CUSTOMER_UNKNOWN");
    expect((await setPlan("pro")).body["code"]).toBe("CUSTOMER_UNKNOWN");
    expect((await contract({ overrides: {} })).body["code"]).toBe("CUSTOMER_UNKNOWN");
    for (const query of [
      "customers?search=%00",
      "customers?after=%00",
      "audit-log?subject=customer/%00",
      "customers/unbilled?after=%00",
    ])
      expect([query, (await world.get(`/admin/v1/${query}`)).body["code"]]).toEqual([query, "QUERY_INVALID"]);
  });

  it("changes what is given, and leaves a row in the log only when something changed", async () => {
    await create({ contacts: [{ kind: "billing", email: "ar@acme.test" }] });
    const renamed = await change({ name: "Acme GmbH", billing: "none" });
    expect(renamed.body).toMatchObject({ name: "Acme GmbH", billing: "none", zone: "UTC" });
    expect((renamed.body["contacts"] as unknown[]).length).toBe(1);
    await change({ name: "Acme GmbH" });
    await change({ contacts: [], reason: "they left" });
    const [last, first, ...more] = await log();
    expect(more).toHaveLength(1);
    expect(first).toMatchObject({
      actor: "kim",
      action: "customer.change",
      reason: "order 4711",
      subject: { kind: "customer", id },
      before: { name: "Acme Ltd", billing: null },
      after: { name: "Acme GmbH", billing: "none" },
    });
    expect(last).toMatchObject({
      reason: "they left",
      before: { contacts: [{ email: "ar@acme.test" }] },
      after: { contacts: [] },
    });
    expect(wrong(await change({}))).toEqual(["/ must change at least one of name, zone, contacts and billing"]);
  });

  it("is found by how its id or its name begins, page by page", async () => {
    const names = ["Zeta One", "zeta two", "100% Zeta", "ZETA three"];
    for (const [index, name] of names.entries()) await create({ id: `list-${count}-${index}`, name });
    const ids = async (query: string): Promise<unknown> => {
      const { body } = await world.get(`/admin/v1/customers?${query}`);
      return [(body["customers"] as { id: string }[]).map((each) => each.id.split("-").at(-1)), body["next"]];
    };
    expect(await ids(`search=list-${count}-`)).toEqual([["0", "1", "2", "3"], null]);
    expect(await ids("search=ZeTa")).toEqual([["0", "1", "3"], null]);
    expect(await ids("search=100%25")).toEqual([["2"], null]);
    expect(await ids("search=zeta&limit=2")).toEqual([["0", "1"], `list-${count}-1`]);
    expect(await ids(`search=zeta&limit=2&after=list-${count}-1`)).toEqual([["3"], null]);
    expect((await world.get("/admin/v1/customers?limit=0")).body["detail"]).toBe("limit must be at least 1");
  });
});

describe("a plan", () => {
  it("begins with the UTC day, and changes at the boundary", async () => {
    await create();
    expect((await setPlan("pro")).body).toEqual({
      state: "decided",
      customer: id,
      replaced: [],
      assignment: { plan: "pro", effectiveAt: "2026-11-20T00:00:00Z", anchorAt: "2026-11-20T00:00:00Z" },
    });
    expect((await setPlan("scale")).body).toMatchObject({
      assignment: { plan: "scale", effectiveAt: "2026-12-20T00:00:00Z", anchorAt: "2026-11-20T00:00:00Z" },
    });
    expect(await show()).toMatchObject({
      plan: "pro@1",
      billsTo: "stripe",
      currentPeriod: { start: "2026-11-20T00:00:00Z", end: "2026-12-20T00:00:00Z", interval: "month", plan: "pro@1" },
      nextPeriod: { start: "2026-12-20T00:00:00Z", end: "2027-01-20T00:00:00Z", plan: "scale@1" },
      assignments: [
        { plan: "scale", state: "planned" },
        { plan: "pro", state: "holds", actor: "kim", reason: "order 4711" },
      ],
    });
  });

  it("is decided once, however often it is asked for", async () => {
    await create();
    const from = { from: "2026-10-31T12:34:56Z" };
    await setPlan("pro", from);
    expect((await setPlan("pro", from)).body).toMatchObject({ state: "unchanged" });
    expect((await setPlan("pro")).body).toMatchObject({ state: "unchanged", assignment: { plan: "pro" } });
    await setPlan("scale");
    expect((await setPlan("scale")).body).toMatchObject({ state: "unchanged", assignment: { plan: "scale" } });
    expect(await log()).toHaveLength(3);
  });

  it("of the future is replaced by a later decision, which says so; the old row stays, marked", async () => {
    await create();
    await setPlan("pro", { from: "2026-10-31T12:34:56Z" });
    await setPlan("scale");
    world.clock.at += 60_000;
    // A period of the 31st ends on the month's last day at that second.
    const planned = { effectiveAt: "2026-11-30T12:34:56Z", anchorAt: "2026-10-31T12:34:56Z" };
    expect((await setPlan(null, { actor: "lee" })).body).toEqual({
      state: "decided",
      customer: id,
      assignment: { plan: null, effectiveAt: planned.effectiveAt, anchorAt: planned.effectiveAt },
      replaced: [{ plan: "scale", ...planned }],
    });
    expect(await show()).toMatchObject({
      nextPeriod: null,
      assignments: [
        { plan: null, state: "planned" },
        { plan: "scale", state: "replaced" },
        { plan: "pro", state: "holds" },
      ],
    });
    expect((await log())[0]).toMatchObject({
      actor: "lee",
      action: "customer.set-plan",
      before: [{ plan: "scale" }],
      after: { plan: null },
    });
  });

  it("waits for the boundary at or after the instant that was asked for", async () => {
    await create();
    await setPlan("pro", { from: "2026-10-31T00:00:00Z" });
    expect((await setPlan("scale", { at: "2027-01-15T00:00:00Z" })).body).toMatchObject({
      assignment: { effectiveAt: "2027-01-31T00:00:00Z", anchorAt: "2026-10-31T00:00:00Z" },
    });
    // What is asked for at a boundary is granted there, and replaces what was decided for later.
    expect((await setPlan("yearly", { at: "2026-12-31T00:00:00Z" })).body).toMatchObject({
      assignment: { plan: "yearly", effectiveAt: "2026-12-31T00:00:00Z", anchorAt: "2026-12-31T00:00:00Z" },
      replaced: [{ plan: "scale" }],
    });
    expect(await show()).toMatchObject({ nextPeriod: { start: "2026-11-30T00:00:00Z", plan: "pro@1" } });
    expect(wrong(await setPlan("scale", { at: "2026-11-20T12:34:55Z" }))).toEqual(["/at must not be in the past"]);
  });

  it("may begin anew after a time without one, never within a period that has begun", async () => {
    await create();
    await setPlan("pro", { from: "2026-10-05T06:00:00Z" });
    await setPlan(null);
    expect(wrong(await setPlan("scale", { from: "2026-12-01T00:00:00Z" }))[0]).toMatch(
      /^\/from is for a customer without a plan; this one's period ends at 2026-12-05T06:00:00Z/,
    );
    world.clock.at = Date.UTC(2026, 11, 5, 18);
    expect(await show()).toMatchObject({ plan: null, currentPeriod: null, nextPeriod: null });
    expect(wrong(await setPlan("scale", { from: "2026-12-05T05:59:59Z" }))).toEqual([
      "/from must not be before the end of the last period, 2026-12-05T06:00:00Z",
    ]);
    // Not the beginning of the day, which the old period holds.
    expect((await setPlan("scale")).body).toMatchObject({ assignment: { effectiveAt: "2026-12-05T06:00:00Z" } });
    expect(await show()).toMatchObject({ plan: "scale@1", currentPeriod: { start: "2026-12-05T06:00:00Z" } });
  });

  it("that begins in the future may begin earlier after all", async () => {
    await create();
    await setPlan("pro", { from: "2027-03-01T00:00:00Z" });
    expect(await show()).toMatchObject({ plan: null, nextPeriod: { start: "2027-03-01T00:00:00Z" } });
    expect(wrong(await setPlan("scale", { from: "2027-03-15T00:00:00Z" }))).toEqual([
      "/from lies inside the period 2027-03-01T00:00:00Z to 2027-04-01T00:00:00Z, which is decided already: say at",
    ]);
    expect((await setPlan("scale", { from: "2027-01-10T00:00:00Z" })).body).toMatchObject({
      assignment: { effectiveAt: "2027-01-10T00:00:00Z" },
      replaced: [{ plan: "pro" }],
    });
  });

  it("keeps the currency of the first one, and so does a contract", async () => {
    await create();
    await setPlan("pro");
    const rule = "is jpy; this customer is billed in usd, and no customer changes its currency";
    expect(wrong(await setPlan("pro_jp"))).toEqual([`/plan ${rule}`]);
    expect(wrong(await contract({ overrides: { currency: "jpy" } }))).toEqual([`/overrides/currency ${rule}`]);
    expect((await show())["assignments"]).toHaveLength(1);
  });

  it.each([
    [{ from: "2025-10-01T00:00:00Z" }, "/from lies more than 400 days back"],
    [{ from: "2037-01-01T00:00:00Z" }, "/from lies more than ten years ahead"],
    [{ from: "tomorrow" }, "/from must be an RFC 3339 instant"],
    [{ from: "2026-12-01T00:00:00Z", at: "2026-12-01T00:00:00Z" }, "/from is for a customer without a plan, at for"],
    [{ plan: "Pro!" }, "/plan must be the key of a plan"],
    [{ plan: undefined }, "/plan must be the key of a plan"],
    [{ reason: undefined }, "/reason is required"],
    [{ actor: "" }, "/actor is required"],
  ])("is refused with %j", async (more, rule) => {
    await create();
    const answer = await setPlan("pro", more);
    expect([answer.status, answer.body["code"]]).toEqual([400, "CUSTOMER_INVALID"]);
    expect(wrong(answer)).toEqual([expect.stringContaining(rule)]);
    expect((await show())["assignments"]).toEqual([]);
  });

  it("must exist, and so must the customer", async () => {
    expect((await setPlan("pro")).body).toMatchObject({ status: 404, code: "CUSTOMER_UNKNOWN" });
    await create();
    const answer = await setPlan("gold");
    expect(answer.body).toMatchObject({ status: 404, code: "PLAN_UNKNOWN" });
    expect(wrong(answer)).toEqual(["/plan must be the key of an applied plan"]);
  });

  it("is decided one after the other by two who ask at once, and the second sees the first", async () => {
    await create();
    await setPlan("pro");
    const answers = await Promise.all([setPlan("scale"), setPlan("yearly")]);
    const replaced = answers.map(({ body }) => (body["replaced"] as unknown[]).length);
    expect(replaced.toSorted((a, b) => a - b)).toEqual([0, 1]);
    const assignments = (await show())["assignments"] as { state: string }[];
    expect(assignments.map(({ state }) => state)).toEqual(["planned", "replaced", "holds"]);
  });
});

describe("a contract", () => {
  it("is laid over the periods that begin from now on, and over all where none has begun", async () => {
    await create();
    expect((await contract({ overrides: { price: "39" } })).body).toMatchObject({
      state: "stored",
      contract: { version: 1, plan: "pro", overrides: { price: "39" }, effectiveAt: null },
    });
    await setPlan("pro", { from: "2026-11-01T00:00:00Z" });
    expect(await show()).toMatchObject({ plan: "pro@1+1", contract: { version: 1 } });
    const second = await contract({ overrides: { price: "29" }, reason: "renewal" });
    expect(second.body).toMatchObject({ contract: { version: 2, effectiveAt: "2026-12-01T00:00:00Z" } });
    expect(await contract({ overrides: { price: "29" } })).toMatchObject({ status: 200, body: { state: "unchanged" } });
    expect(await show()).toMatchObject({
      currentPeriod: { plan: "pro@1+1" },
      nextPeriod: { plan: "pro@1+2" },
      contract: { version: 2 },
      contracts: 2,
    });
    expect((await log())[0]).toMatchObject({
      action: "customer.contract",
      reason: "renewal",
      before: { version: 1, overrides: { price: "39" } },
      after: { version: 2, overrides: { price: "29" } },
    });
  });

  it("sets what a plan leaves custom, before anybody is put on it", async () => {
    await create();
    const refused = await setPlan("enterprise");
    expect(refused.body).toMatchObject({ status: 409, code: "CONTRACT_NEEDED" });
    expect(wrong(refused)).toEqual(["price is custom in the plan: the contract must set it"]);
    await contract({ plan: "enterprise", overrides: { price: "5000" } });
    expect((await setPlan("enterprise")).status).toBe(200);
    expect(await show()).toMatchObject({ plan: "enterprise@1+1" });
  });

  it("must make a valid plan; each wrong field is named", async () => {
    await create();
    const answer = await contract({ overrides: { price: 39, colour: "red" } });
    expect([answer.status, answer.body["code"]]).toEqual([400, "CUSTOMER_INVALID"]);
    expect(wrong(answer).map((text) => text.split(" ")[0])).toEqual(
      expect.arrayContaining(["/overrides/price", "/overrides/colour"]),
    );
    expect(wrong(await contract({ overrides: [] }))).toEqual(["/overrides must be an object of plan fields"]);
    expect((await contract({ plan: "gold", overrides: {} })).body).toMatchObject({ code: "PLAN_UNKNOWN" });
    expect(await log()).toHaveLength(1);
  });
});

describe("another mode", () => {
  it("has another customer of the same id, and sees nothing of this one", async () => {
    await create({ name: "SENTINEL live" });
    await setPlan("pro");
    await contract({ overrides: { price: "39" } });
    expect((await world.get(`/admin/v1/customers/${id}`, "test")).body).toMatchObject({ code: "CUSTOMER_UNKNOWN" });
    const url = `/admin/v1/customers/${id}/plan`;
    expect((await world.post(url, { plan: "pro", ...WHO }, "test")).body).toMatchObject({ code: "CUSTOMER_UNKNOWN" });
    expect((await create({ name: "theirs" }, "test")).status).toBe(201);
    expect(await show("test")).toMatchObject({ name: "theirs", plan: null, assignments: [], contracts: 0 });
    await unbilledUsage("SENTINEL-unknown", "2026-11-01T00:00:00Z");
    for (const path of [
      "/admin/v1/customers",
      "/admin/v1/customers/unbilled",
      "/admin/v1/audit-log",
      `/admin/v1/audit-log?subject=customer/${id}`,
    ]) {
      expect((await world.get(path, "test")).text).not.toMatch(/SENTINEL/);
      expect((await world.get(path)).text).toMatch(/SENTINEL/);
    }
  });
});

describe("unbilled usage", () => {
  it("is listed by customer with its reason, page by page, without customers whose billing is none", async () => {
    const names = ["known", "none", "unknown"].map((name) => `u${count}-${name}`);
    await create({ id: names[0] });
    await create({ id: names[1], billing: "none" });
    for (const name of names) await unbilledUsage(name, "2026-11-02T06:00:00Z");
    await unbilledUsage(names[0] ?? "", "2026-11-09T06:00:00Z");
    const page = async (query: string): Promise<Record<string, unknown>> =>
      (await world.get(`/admin/v1/customers/unbilled?after=u${count}&${query}`)).body;
    const first = {
      customer: names[0],
      reason: "no_plan",
      firstAt: "2026-11-02T06:00:00Z",
      lastAt: "2026-11-09T06:15:00Z",
    };
    const second = { ...first, customer: names[2], reason: "no_customer", lastAt: "2026-11-02T06:15:00Z" };
    expect(await page("limit=10")).toEqual({ mode: "live", customers: [first, second], next: null });
    expect(await page("limit=1")).toEqual({ mode: "live", customers: [first], next: names[0] });
  });
});

describe("the log of changes", () => {
  it("is paged by id and refuses what it does not know", async () => {
    await create();
    for (const name of ["a", "b", "c"]) await change({ name });
    const page = async (query: string): Promise<Record<string, unknown>> =>
      (await world.get(`/admin/v1/audit-log?subject=customer/${id}&${query}`)).body;
    const first = await page("limit=3");
    const changes = first["changes"] as { id: number; action: string; after: { name: string } }[];
    expect(changes.map(({ after }) => after.name)).toEqual(["c", "b", "a"]);
    expect(first["next"]).toBe(changes[2]?.id);
    const rest = await page(`limit=3&before=${String(first["next"])}`);
    expect((rest["changes"] as { action: string }[]).map(({ action }) => action)).toEqual(["customer.create"]);
    expect(rest["next"]).toBeNull();
    expect((await page("subject=meter/x"))["code"]).toBe("QUERY_INVALID");
  });

  it("cannot be edited, by whatever statement", async () => {
    await create();
    await expect(world.control.query("UPDATE admin_audit SET actor = 'nobody'")).rejects.toThrow(/never change/);
    await expect(world.control.query("DELETE FROM admin_audit")).rejects.toThrow(/never change/);
    await contract({ overrides: { price: "39" } });
    await expect(world.control.query("UPDATE customer_contract SET version = 9")).rejects.toThrow(/never change/);
  });
});

describe("a crash", () => {
  it("anywhere within a change leaves neither the change nor its row in the log", async () => {
    await create();
    await setPlan("pro", { from: "2026-11-01T00:00:00Z" });
    const before = [await show(), await log()];
    const key = { mode: "live", id, nowAt: NOW, ...WHO } as const;
    const fields = { name: "new", zone: "UTC", billing: null, contacts: [] };
    const wanted = { plan: "scale", notBeforeAt: null, fromAt: null };
    const changes: readonly ((control: typeof world.control) => Promise<unknown>)[] = [
      (control) => createCustomer(control, { ...key, id: `${id}-new`, fields }),
      (control) => assignPlan(control, { ...key, wanted }),
      (control) => storeContract(control, { ...key, plan: "pro", overrides: { price: "1" } }),
    ];
    let crashes = 0;
    for (const make of changes) {
      for (let statements = 0; ; statements += 1) {
        const isDone = await make(failingAfter(statements)).then(
          () => true,
          (error: unknown) => {
            expect((error as Error).message).toBe("crash");
            return false;
          },
        );
        if (isDone) break;
        crashes += 1;
        expect([await show(), await log()]).toEqual(before);
        expect((await world.get(`/admin/v1/customers/${id}-new`)).status).toBe(404);
      }
      // The whole change was made now: what follows is judged against it.
      before.splice(0, 2, await show(), await log());
      await world.control.query("DELETE FROM customer WHERE customer_id = $1", [`${id}-new`]);
    }
    // Statements of the three changes: the last of each is the row of the log.
    expect(crashes).toBeGreaterThan(12);
  });
});

/** As the reporter would have listed one window of usage. */
async function unbilledUsage(customer: string, from: string): Promise<void> {
  await world.control.query(
    `INSERT INTO unbilled (mode, customer_id, gap_at, first_at, last_at)
     VALUES ('live', $1, $2::timestamptz, $2::timestamptz, $2::timestamptz + INTERVAL '15 minutes')`,
    [customer, from],
  );
}

/** The control store of a process that dies within a transaction, after so many statements of it. */
function failingAfter(statements: number): typeof world.control {
  return {
    ...world.control,
    transaction: (body) =>
      world.control.transaction(async (tx) => {
        let left = statements;
        return body({
          query: async (sql, params) => {
            if (left === 0) throw new Error("crash");
            left -= 1;
            return tx.query(sql, params);
          },
        });
      }),
  };
}
