import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadApiDescription } from "./api-description.ts";
import { handlers } from "./engine.ts";
import { startStripeEmulator } from "./index.ts";
import { type Harness, officialClient, startHarness, stripeError } from "./test-support.ts";

const DAY_MS = 24 * 3_600_000;

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness();
});
afterEach(() => harness.close());

describe("authentication", () => {
  const get = (headers: Record<string, string>) => harness.request("GET", "/v1/customers", { headers });
  const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;

  it.each(["Bearer sk_test_1", "Bearer rk_test_1", "bearer sk_live_1", basic("sk_test_1:"), basic("rk_live_1")])(
    "takes %s",
    async (authorization) => {
      expect(await get({ authorization })).toMatchObject({ status: 200, body: { object: "list" } });
    },
  );

  it.each(["", "Bearer ", "Digest x", basic(":password")])("misses a key in %j", async (authorization) => {
    const answer = await get({ authorization });
    expect(answer).toMatchObject({ status: 401, body: { error: { type: "invalid_request_error" } } });
    expect(answer.body.error["message"]).toMatch(/^You did not provide an API key\. /);
    expect(answer.body.error).not.toHaveProperty("code");
  });

  it.each([
    ["Bearer sk_prod_1", "Invalid API Key provided: *****od_1"],
    ["Bearer pk_test_123456789012", "Invalid API Key provided: pk_test_********9012"],
    ["Bearer sk_test_a-b", "Invalid API Key provided: sk_test_***"],
    [basic("hello:"), "Invalid API Key provided: *****"],
  ])("refuses %j without repeating the key", async (authorization, message) => {
    expect(await get({ authorization })).toMatchObject({
      status: 401,
      body: { error: { type: "invalid_request_error", message } },
    });
  });

  it("reaches the client as its authentication error", async () => {
    const stranger = officialClient(harness.emulator, "nonsense");
    expect(await stripeError(stranger.customers.list())).toMatchObject({
      type: "StripeAuthenticationError",
      statusCode: 401,
    });
  });
});

describe("routes", () => {
  it.each([
    ["GET", "/v1/x"],
    ["GET", "/v1/customers/"],
    ["PUT", "/v1/customers"],
    ["GET", "/v1/billing/meters/mtr_1/deactivate"],
    ["DELETE", "/v1/billing/meters/mtr_1"],
    ["GET", "/v1/customers/%zz"],
    ["GET", "/v3/customers"],
  ])("unknown: %s %s", async (method, path) => {
    const answer = await harness.request(method, path);
    expect(answer).toMatchObject({ status: 404, body: { error: { type: "invalid_request_error" } } });
    expect(answer.body.error["message"]).toContain(`Unrecognized request URL (${method}: ${path}). `);
  });

  it("documented and not built answer 501 and are not to be retried, all of them", async () => {
    const others = loadApiDescription().operations.filter(({ key }) => handlers[key] === undefined);
    expect(others).toHaveLength(126 - Object.keys(handlers).length);
    for (const { key } of others) {
      const [method = "", template = ""] = key.split(" ");
      const answer = await harness.request(method, template.replaceAll(/\{\w+\}/g, "obj_1"));
      const { status, body } = answer;
      expect([key, status, body.error["code"]]).toEqual([key, 501, "emulator_unsupported"]);
      expect(answer.headers.get("stripe-should-retry")).toBe("false");
    }
  });

  it("have handlers that know only documented operations and parameters", () => {
    const operations = new Map(loadApiDescription().operations.map((operation) => [operation.key, operation]));
    for (const [key, handler] of Object.entries(handlers)) {
      const documented = Object.keys(operations.get(key)?.parameters.properties ?? {});
      const unknown = handler.supported.filter((name) => !documented.includes(name));
      expect([key, unknown]).toEqual([key, []]);
    }
  });

  it("reach the client as its error for 501", async () => {
    expect(await stripeError(harness.stripe.subscriptions.list())).toMatchObject({
      statusCode: 501,
      code: "emulator_unsupported",
    });
  });
});

describe("headers and bodies", () => {
  it("echo version, account and key, and name the request", async () => {
    const { headers } = await harness.request("POST", "/v1/customers", {
      body: "name=x",
      headers: { "Stripe-Version": "2025-01-01.old", "Stripe-Account": "acct_1", "Idempotency-Key": "k" },
    });
    expect(headers.get("stripe-version")).toBe("2025-01-01.old");
    expect(headers.get("stripe-account")).toBe("acct_1");
    expect(headers.get("idempotency-key")).toBe("k");
    expect(headers.get("request-id")).toMatch(/^req_[0-9A-Za-z]{14}$/);
    const bare = await harness.request("GET", "/v1/customers");
    expect(bare.headers.get("stripe-version")).toBe("2026-10-28.endive");
    expect(bare.headers.get("request-id")).not.toBe(headers.get("request-id"));
  });

  it("take brackets encoded or not, and parameters in the query", async () => {
    const answer = await harness.request("POST", "/v1/customers?name=q", {
      body: "metadata%5Ba%5D=1&expand[]=test_clock&preferred_locales[]=de&preferred_locales[]=en",
    });
    expect(answer).toMatchObject({
      status: 200,
      body: { name: "q", metadata: { a: "1" }, preferred_locales: ["de", "en"] },
    });
  });

  it("are refused in another content type, broken, or too large", async () => {
    const json = { body: "{}", headers: { "Content-Type": "application/json" } };
    expect(await harness.request("POST", "/v1/customers", json)).toMatchObject({ status: 400 });
    expect(await harness.request("POST", "/v1/customers", { body: "name=%zz" })).toMatchObject({ status: 400 });
    const body = `name=${"x".repeat(1 << 20)}`;
    expect(await harness.request("POST", "/v1/customers", { body })).toMatchObject({ status: 413 });
    expect((await harness.emulator.truth()).customers).toEqual([]);
  });
});

describe("idempotency keys", () => {
  const post = (key: string, body: string, path = "/v1/customers") =>
    harness.request("POST", path, { body, headers: { "Idempotency-Key": key } });

  it("replay the first result, and execute once", async () => {
    const first = await post("k", "name=a&email=a@x.y");
    const again = await post("k", "email=a@x.y&name=a");
    expect(first.headers.get("idempotent-replayed")).toBeNull();
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(again.body).toEqual(first.body);
    expect((await harness.emulator.truth()).customers).toHaveLength(1);
  });

  it("replay the state of then, not of now", async () => {
    const first = await post("k", "name=a");
    await harness.stripe.customers.update(String(first.body["id"]), { name: "b" });
    expect((await post("k", "name=a")).body).toEqual(first.body);
  });

  it("with other parameters or another path are an idempotency error", async () => {
    await post("k", "name=a");
    for (const other of [await post("k", "name=b"), await post("k", "name=a", "/v1/customers/cus_x")]) {
      expect(other).toMatchObject({ status: 400, body: { error: { type: "idempotency_error" } } });
      expect(other.body.error["message"]).toMatch(
        /^Keys for idempotent requests can only be used with the same parameters/,
      );
    }
    const error = await stripeError(harness.stripe.customers.create({ name: "b" }, { idempotencyKey: "k" }));
    expect(error).toMatchObject({ type: "StripeIdempotencyError", rawType: "idempotency_error" });
  });

  it("are new again after 24 h", async () => {
    const first = await post("k", "name=a");
    harness.clock.advance(DAY_MS - 1);
    expect((await post("k", "name=a")).headers.get("idempotent-replayed")).toBe("true");
    harness.clock.advance(1);
    const second = await post("k", "name=b");
    expect(second.status).toBe(200);
    expect(second.body["id"]).not.toBe(first.body["id"]);
    expect((await post("k", "name=b")).body).toEqual(second.body);
  });

  it("keep refusals of executed requests, but not of wrong or unsupported parameters", async () => {
    const missing = await post("executed", "name=x", "/v1/customers/cus_none");
    expect(missing.status).toBe(404);
    const replayed = await post("executed", "name=x", "/v1/customers/cus_none");
    expect(replayed).toMatchObject({ status: 404, body: missing.body });
    expect(replayed.headers.get("idempotent-replayed")).toBe("true");

    expect((await post("wrong", "nam=x")).status).toBe(400);
    expect((await post("wrong", "name=x")).status).toBe(200);
    expect((await post("unsupported", "source=tok")).status).toBe(501);
    expect((await post("unsupported", "name=x")).status).toBe(200);
  });

  it("have at most 255 characters, and an empty one is none", async () => {
    expect((await post("k".repeat(255), "name=a")).status).toBe(200);
    expect(await post("k".repeat(256), "name=a")).toMatchObject({
      status: 400,
      body: { error: { type: "idempotency_error" } },
    });
    expect((await post("", "name=a")).body["id"]).not.toBe((await post("", "name=a")).body["id"]);
  });

  it("belong to one mode", async () => {
    await post("k", "name=a");
    const live = await harness.live.customers.create({ name: "b" }, { idempotencyKey: "k" });
    expect(live).toMatchObject({ name: "b", livemode: true });
  });

  it("and identifiers are independent: same key 200 again, another key 400", async () => {
    const { stripe } = harness;
    const { id } = await stripe.customers.create();
    await stripe.billing.meters.create({ display_name: "d", event_name: "e", default_aggregation: { formula: "sum" } });
    const event = { event_name: "e", payload: { stripe_customer_id: id, value: "1", x: "y" }, identifier: "i" };
    const first = await stripe.billing.meterEvents.create(event, { idempotencyKey: "k1" });
    harness.clock.advance(3_600_000);
    const again = await stripe.billing.meterEvents.create(event, { idempotencyKey: "k1" });
    expect(again).toEqual(first);
    const other = await stripeError(stripe.billing.meterEvents.create(event, { idempotencyKey: "k2" }));
    expect(other).toMatchObject({ statusCode: 400, message: "An event already exists with identifier i." });
    const replayed = await stripeError(stripe.billing.meterEvents.create(event, { idempotencyKey: "k2" }));
    expect(replayed.message).toBe(other.message);
    expect((await harness.emulator.truth()).events.map((row) => row.fate)).toEqual(["counted", "duplicate"]);
  });

  it("in flight are 409", async () => {
    const [first, second] = await pipelined(harness, [
      { path: "/v1/customers", body: "name=a", key: "k" },
      { path: "/v1/customers", body: "name=a", key: "k" },
    ]);
    expect(first).toContain("HTTP/1.1 200");
    expect(second).toContain("HTTP/1.1 409");
    expect(second).toContain('"code":"idempotency_key_in_use"');
    expect((await post("k", "name=a")).headers.get("idempotent-replayed")).toBe("true");
    expect((await harness.emulator.truth()).customers).toHaveLength(1);
  });
});

describe("limits", () => {
  async function withLimits(test: (own: Harness) => Promise<void>): Promise<void> {
    const own = await startHarness({ limits: "on" });
    try {
      await test(own);
    } finally {
      await own.close();
    }
  }

  it("let one meter event of a pair through at a time: the other is 409 and was not received", async () => {
    await withLimits(async (own) => {
      const a = (await own.stripe.customers.create()).id;
      const b = (await own.stripe.customers.create()).id;
      await own.stripe.billing.meters.create({
        display_name: "d",
        event_name: "e",
        default_aggregation: { formula: "sum" },
      });
      const event = (who: string, key: string) => ({
        path: "/v1/billing/meter_events",
        body: `event_name=e&payload[stripe_customer_id]=${who}&payload[value]=1&identifier=${key}`,
        key,
      });
      const answers = await pipelined(own, [event(a, "1"), event(a, "2"), event(b, "3")]);
      expect(answers.map((answer) => answer.slice(9, 12))).toEqual(["200", "409", "200"]);
      expect(answers[1]).toContain('"code":"lock_timeout"');
      expect((await own.emulator.truth()).events.map((row) => row.identifier)).toEqual(["1", "3"]);
      // Not stored under its key: the same request passes now.
      const [again] = await pipelined(own, [event(a, "2")]);
      expect(again).toContain("HTTP/1.1 200");
      const counts = (await (await fetch(`${own.emulator.url}/_emulator/requests`)).json()) as object;
      expect(counts).toEqual({
        operations: { "POST /v1/customers": 2, "POST /v1/billing/meters": 1, "POST /v1/billing/meter_events": 4 },
        maxConcurrencyPerPair: 2,
        crowdedPairs: { [`test ["e","${a}"]`]: 2 },
      });
    });
  });

  it("allow 25 calls a second in test mode and name the reason", async () => {
    await withLimits(async (own) => {
      for (let at = 0; at < 25; at += 1) await own.stripe.customers.list();
      const error = await stripeError(own.stripe.customers.create({}, { idempotencyKey: "k" }));
      expect(error).toMatchObject({ type: "StripeRateLimitError", statusCode: 429, code: "rate_limit" });
      expect(error.headers).toMatchObject({ "stripe-rate-limited-reason": "global-rate" });
      await own.live.customers.list();
      own.clock.advance(40); // one call's worth
      await own.stripe.customers.create({}, { idempotencyKey: "k" });
      expect(await stripeError(own.stripe.customers.list())).toMatchObject({ statusCode: 429 });
    });
  });

  it("allow 25 calls a second per live endpoint, 100 in all, and 1,000 meter events apart from them", async () => {
    await withLimits(async (own) => {
      for (let at = 0; at < 25; at += 1) await own.live.customers.list();
      const endpoint = await stripeError(own.live.customers.list());
      expect(endpoint.headers).toMatchObject({ "stripe-rate-limited-reason": "endpoint-rate" });
      for (let at = 0; at < 25; at += 1) {
        await stripeError(own.live.customers.retrieve("cus_x"));
        await own.live.billing.meters.list();
        await stripeError(own.live.billing.meters.retrieve("mtr_x"));
      }
      const global = await stripeError(own.live.customers.create());
      expect(global.headers).toMatchObject({ "stripe-rate-limited-reason": "global-rate" });
      const event = { event_name: "e", payload: { stripe_customer_id: "c", value: "1" } };
      for (let at = 0; at < 1_000; at += 1) await stripeError(own.live.billing.meterEvents.create(event));
      const events = await stripeError(own.live.billing.meterEvents.create(event));
      expect(events).toMatchObject({ statusCode: 429 });
      expect((await own.emulator.truth()).events).toHaveLength(1_000);
    });
  });
});

describe("the start", () => {
  it("names a port that is in use", async () => {
    const { port } = harness.emulator;
    await expect(startStripeEmulator({ port })).rejects.toThrow(`port ${port} on 127.0.0.1 is in use already`);
  });

  it("frees its port on close, also with idle connections, and closing again is harmless", async () => {
    const { port } = harness.emulator;
    await harness.stripe.customers.list();
    await harness.emulator.close();
    await harness.emulator.close();
    const next = await startStripeEmulator({ port });
    expect(next.port).toBe(port);
    await next.close();
  });
});

/** Sends requests on one connection at once, so that all are in flight before the first answer. */
function pipelined(own: Harness, requests: readonly { path: string; body: string; key: string }[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket = connect(own.emulator.port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("data", (chunk: string) => {
      text += chunk;
    });
    socket.on("end", () => resolve(text.split(/(?=HTTP\/1\.1 )/)));
    const last = requests.length - 1;
    socket.write(
      requests
        .map(({ path, body, key }, at) =>
          [
            `POST ${path} HTTP/1.1`,
            "Host: localhost",
            "Authorization: Bearer sk_test_pipelined",
            "Content-Type: application/x-www-form-urlencoded",
            `Idempotency-Key: ${key}`,
            `Content-Length: ${Buffer.byteLength(body)}`,
            `Connection: ${at === last ? "close" : "keep-alive"}`,
            "",
            body,
          ].join("\r\n"),
        )
        .join(""),
    );
  });
}
