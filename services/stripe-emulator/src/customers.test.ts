import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Harness, startHarness, stripeError } from "./test-support.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

describe("customers", () => {
  it("are created with every documented field that the emulator keeps", async () => {
    const { stripe } = harness;
    const created = await stripe.customers.create({
      address: { line1: "1 Main St", country: "DE" },
      balance: -500,
      business_name: "Acme",
      description: "d",
      email: "a@example.com",
      individual_name: "Ann",
      invoice_prefix: "ACME1",
      invoice_settings: {
        footer: "f",
        custom_fields: [{ name: "VAT", value: "1" }],
        rendering_options: { amount_tax_display: "exclude_tax" },
      },
      metadata: { a: "1", b: "ü&=[]%" },
      name: "Acme Inc",
      next_invoice_sequence: 7,
      phone: "1",
      preferred_locales: ["de", "en"],
      shipping: { address: { city: "Berlin" }, name: "Dock" },
      tax_exempt: "reverse",
    });
    expect(created).toMatchObject({
      object: "customer",
      livemode: false,
      created: Math.floor(harness.clock.now() / 1_000),
      address: { line1: "1 Main St", country: "DE", city: null },
      balance: -500,
      metadata: { a: "1", b: "ü&=[]%" },
      invoice_settings: {
        footer: "f",
        custom_fields: [{ name: "VAT", value: "1" }],
        rendering_options: { amount_tax_display: "exclude_tax", template: null },
      },
      preferred_locales: ["de", "en"],
      shipping: { address: { city: "Berlin", line1: null }, name: "Dock", phone: null },
      tax_exempt: "reverse",
    });
    expect(created.id).toMatch(/^cus_[0-9A-Za-z]{14}$/);
    expect(await stripe.customers.retrieve(created.id)).toEqual(created);
  });

  it("are created from nothing", async () => {
    expect(await harness.stripe.customers.create()).toMatchObject({
      name: null,
      email: null,
      metadata: {},
      balance: 0,
    });
  });

  it("change only in what an update names; empty texts unset", async () => {
    const { stripe } = harness;
    const { id } = await stripe.customers.create({ name: "n", metadata: { a: "1", b: "2" }, address: { city: "x" } });
    const changed = await stripe.customers.update(id, { description: "new", metadata: { a: "", c: "3" }, address: "" });
    expect(changed).toMatchObject({ name: "n", description: "new", metadata: { b: "2", c: "3" }, address: null });
    expect(await stripe.customers.update(id, { metadata: "" })).toMatchObject({ metadata: {} });
    expect(await stripe.customers.update(id, { business_name: "B" })).toMatchObject({ business_name: "B" });
    expect(await stripe.customers.update(id, { business_name: "" })).not.toHaveProperty("business_name");
  });

  it("leave a tombstone when deleted", async () => {
    const { stripe } = harness;
    const { id } = await stripe.customers.create();
    const tombstone = { id, object: "customer", deleted: true };
    expect(await stripe.customers.del(id)).toEqual(tombstone);
    expect(await stripe.customers.retrieve(id)).toEqual(tombstone);
    const missing = { statusCode: 404, code: "resource_missing", message: `No such customer: '${id}'` };
    expect(await stripeError(stripe.customers.del(id))).toMatchObject(missing);
    expect(await stripeError(stripe.customers.update(id, { name: "x" }))).toMatchObject(missing);
    expect((await stripe.customers.list({ limit: 100 })).data.map((customer) => customer.id)).not.toContain(id);
  });

  it("that do not exist are 404 with the object named", async () => {
    expect(await stripeError(harness.stripe.customers.retrieve("cus_none"))).toMatchObject({
      type: "StripeInvalidRequestError",
      rawType: "invalid_request_error",
      statusCode: 404,
      code: "resource_missing",
      message: "No such customer: 'cus_none'",
      param: "id",
    });
  });

  it.each([
    [{ email: "nobody" }, { code: "email_invalid", param: "email" }],
    [{ invoice_prefix: "low" }, { param: "invoice_prefix" }],
    [{ business_name: "b".repeat(151) }, { param: "business_name" }],
    [{ metadata: { a: "v".repeat(501) } }, { param: "metadata[a]" }],
    [{ metadata: { ["k".repeat(41)]: "v" } }, { param: `metadata[${"k".repeat(41)}]` }],
    [{ metadata: Object.fromEntries(Array.from({ length: 51 }, (_, at) => [`k${at}`, "v"])) }, { param: "metadata" }],
  ])("refuse %j", async (parameters, expected) => {
    expect(await stripeError(harness.stripe.customers.create(parameters))).toMatchObject({
      statusCode: 400,
      ...expected,
    });
  });

  it.each([
    { payment_method: "pm_card_visa" },
    { source: "tok_visa" },
    { test_clock: "clock_1" },
    { tax_id_data: [{ type: "eu_vat" as const, value: "DE1" }] },
    { tax: { ip_address: "192.0.2.1" } },
    { cash_balance: { settings: { reconciliation_mode: "manual" as const } } },
    { invoice_settings: { default_payment_method: "pm_1" } },
    { invoice_settings: { rendering_options: { template: "inrtem_1" } } },
    { expand: ["subscriptions"] },
  ])("answer 501 to what is documented and not built: %j", async (parameters) => {
    const error = await stripeError(harness.stripe.customers.create(parameters));
    expect(error).toMatchObject({ statusCode: 501, code: "emulator_unsupported" });
    expect(error.headers).toMatchObject({ "stripe-should-retry": "false" });
  });

  it("expand what can be expanded, and refuse the rest", async () => {
    const { stripe } = harness;
    await stripe.customers.create({ expand: ["default_source", "test_clock"] });
    await stripe.customers.list({ expand: ["data.default_source"] });
    for (const expand of [["name"], ["nothing"], ["a.b.c.d.e"]]) {
      expect(await stripeError(stripe.customers.create({ expand }))).toMatchObject({
        statusCode: 400,
        param: "expand",
      });
    }
  });
});

describe("lists", () => {
  it("page from new to old and back, 10 at a time by default", async () => {
    const own = await startHarness();
    const { stripe } = own;
    const ids: string[] = [];
    for (let at = 0; at < 23; at += 1) ids.unshift((await stripe.customers.create({ name: String(at) })).id);
    const idsOf = (list: { data: { id: string }[] }) => list.data.map((row) => row.id);

    const first = await stripe.customers.list();
    expect(first).toMatchObject({ object: "list", url: "/v1/customers", has_more: true });
    expect(idsOf(first)).toEqual(ids.slice(0, 10));
    const last = await stripe.customers.list({ limit: 13, starting_after: ids[9] ?? "" });
    expect(last.has_more).toBe(false);
    expect(idsOf(last)).toEqual(ids.slice(10));
    const back = await stripe.customers.list({ limit: 4, ending_before: ids[10] ?? "" });
    expect(back.has_more).toBe(true);
    expect(idsOf(back)).toEqual(ids.slice(6, 10));
    expect((await stripe.customers.list({ limit: 10, ending_before: ids[10] ?? "" })).has_more).toBe(false);
    expect((await stripe.customers.list({ limit: 23 })).has_more).toBe(false);

    const paged: string[] = [];
    for await (const customer of stripe.customers.list({ limit: 5 })) paged.push(customer.id);
    expect(paged).toEqual(ids);
    await own.close();
  });

  it("filter by email and creation", async () => {
    const own = await startHarness();
    const { stripe, clock } = own;
    const start = Math.floor(clock.now() / 1_000);
    for (const email of ["a@x.y", "b@x.y", "a@x.y"]) {
      await stripe.customers.create({ email });
      clock.advance(10_000);
    }
    const count = async (query: Parameters<typeof stripe.customers.list>[0]) =>
      (await stripe.customers.list(query)).data.length;
    expect(await count({ email: "a@x.y" })).toBe(2);
    expect(await count({ email: "A@x.y" })).toBe(0);
    expect(await count({ created: start + 10 })).toBe(1);
    expect(await count({ created: { gte: start + 10 } })).toBe(2);
    expect(await count({ created: { gt: start + 10 } })).toBe(1);
    expect(await count({ created: { gt: start, lt: start + 20 } })).toBe(1);
    expect(await count({ created: { gte: start, lte: start + 20 } })).toBe(3);
    expect(await stripeError(stripe.customers.list({ test_clock: "clock_1" }))).toMatchObject({ statusCode: 501 });
    await own.close();
  });

  it.each([
    [{ limit: 0 }, { code: "parameter_invalid_integer", param: "limit" }],
    [{ limit: 101 }, { code: "parameter_invalid_integer", param: "limit" }],
    [{ starting_after: "cus_none" }, { code: "resource_missing", param: "starting_after" }],
    [{ ending_before: "cus_none" }, { code: "resource_missing", param: "ending_before" }],
    [{ starting_after: "cus_a", ending_before: "cus_b" }, { rawType: "invalid_request_error" }],
  ])("refuse %j", async (query, expected) => {
    const error = await stripeError(harness.stripe.customers.list(query));
    expect(error).toMatchObject({ statusCode: 400, ...expected });
  });
});
