import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Truth } from "./index.ts";
import { type Harness, startHarness, stripeError } from "./test-support.ts";

const ODD = `<script>alert("1")</script>&'`;

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  const { stripe, live } = harness;
  const { id } = await stripe.customers.create({ name: ODD });
  const gone = await stripe.customers.create();
  await stripe.billing.meters.create({ display_name: ODD, event_name: "e", default_aggregation: { formula: "last" } });
  await live.customers.create({ name: "live" });
  const send = (value: string, identifier: string) =>
    stripe.billing.meterEvents.create({ event_name: "e", payload: { stripe_customer_id: id, value }, identifier });
  await send("0.1", "1");
  await send("0.2", "2");
  await stripeError(send("7", "2"));
  await stripeError(send(ODD, ODD));
  await stripe.customers.del(gone.id);
});
afterAll(() => harness.close());

const get = (path: string) => fetch(harness.emulator.url + path);

describe("the truth", () => {
  it("is the same as JSON, as lines and in the process", async () => {
    const truth = await harness.emulator.truth();
    expect(await (await get("/_emulator/truth")).json()).toEqual(truth);
    const response = await get("/_emulator/truth?format=ndjson");
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    const rows = (await response.text())
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { kind: string });
    const only = (kind: string) => rows.filter((row) => row.kind === kind);
    const collected = {
      customers: only("customer"),
      meters: only("meter"),
      events: only("event"),
      totals: only("total"),
    };
    const labelled = (kind: string, list: readonly object[]) => list.map((row) => ({ kind, ...row }));
    expect(collected).toEqual({
      customers: labelled("customer", truth.customers),
      meters: labelled("meter", truth.meters),
      events: labelled("event", truth.events),
      totals: labelled("total", truth.totals),
    });
  });

  it("has every object, every event with its fate, and exact totals", async () => {
    const { customers, meters, events, totals }: Truth = await harness.emulator.truth();
    expect(customers.map(({ mode, deleted }) => [mode, deleted ?? false])).toEqual([
      ["test", false],
      ["test", true],
      ["live", false],
    ]);
    expect(meters).toHaveLength(1);
    expect(events.map(({ identifier, value, fate, code }) => [identifier, value, fate, code])).toEqual([
      ["1", "0.1", "counted", null],
      ["2", "0.2", "counted", null],
      ["2", "7", "duplicate", null],
      [ODD, ODD, "rejected", "meter_event_invalid_value"],
    ]);
    expect(totals).toMatchObject([{ mode: "test", event_name: "e", count: 2, sum: "0.3", last: "0.2" }]);
  });
});

describe("the page", () => {
  it("shows customers, meters and events, escaped", async () => {
    const response = await get("/");
    expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
    const html = await response.text();
    expect(html).not.toContain("<script>");
    expect(html).toContain("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;");
    for (const text of ["(deleted)", "meter_event_invalid_value", "duplicate", "counted", "live"])
      expect(html).toContain(text);
  });

  it("is the only one", async () => {
    expect((await get("/_emulator/none")).status).toBe(404);
    expect((await fetch(harness.emulator.url, { method: "POST" })).status).toBe(404);
  });
});

it("survives clients that leave in the middle", async () => {
  const { port } = harness.emulator;
  for (const text of [
    "POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nname",
    "GET /_emulator/truth HTTP/1.1\r\nHost: x\r\n\r\n",
  ]) {
    await new Promise<void>((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.end(text, () => socket.destroy()));
      socket.on("close", () => resolve());
      socket.on("error", reject);
    });
  }
  expect((await get("/_emulator/truth")).status).toBe(200);
});
