import { USAGE_EVENT_LIMITS } from "@tallyhouse/domain";
import { describe, expect, test } from "vitest";
import { CLOUD, eventsOf, LIVE, NATIVE, NOW, post, problemOf, startGateway, TEST } from "./test-gateway.ts";

const CLOUD_ONE = { "content-type": "application/cloudevents+json" };
const CLOUD_BATCH = { "content-type": "application/cloudevents-batch+json; charset=utf-8" };

describe("what is taken", () => {
  test("a native event: 202, one result, one record with its key in its partition", async () => {
    const { app, log } = await startGateway();
    const answer = await post(app, { ...NATIVE, id: "evt-ü/1", time: "2026-11-20T09:00:00.1239Z" });
    expect(answer.statusCode).toBe(202);
    expect(answer.headers["content-type"]).toMatch(/^application\/json/);
    expect(answer.json()).toEqual({ results: [{ id: "evt-ü/1", status: "accepted" }], accepted: 1, rejected: 0 });
    expect(log.records).toHaveLength(1);
    expect(log.records[0]?.key?.toString()).toBe("live/cus_1/api/evt-ü/1");
    // kafkajs 2.2.4 and Java clients put this key there, of 16.
    expect(log.records[0]?.partition).toBe(14);
    expect(log.records[0]?.headers).toEqual({});
    expect(eventsOf(log)).toEqual([
      {
        mode: "live",
        customer: "cus_1",
        source: "api",
        id: "evt-ü/1",
        type: "llm.request",
        occurredAt: Date.UTC(2026, 10, 20, 9, 0, 0, 123),
        isStamped: false,
        decidedAt: null,
        data: { inputTokens: 10 },
      },
    ]);
  });

  test("every shape that is documented", async () => {
    const { app, log } = await startGateway();
    const statuses = [
      await post(app, [NATIVE, { ...NATIVE, id: "evt-2" }]),
      await post(app, CLOUD),
      await post(app, [CLOUD, NATIVE]),
      await post(app, CLOUD, CLOUD_ONE),
      await post(app, [CLOUD, { ...CLOUD, id: "evt-2" }], CLOUD_BATCH),
    ].map(({ statusCode }) => statusCode);
    expect(statuses).toEqual([202, 202, 202, 202, 202]);
    expect(log.records).toHaveLength(8);
  });

  test("two events of one identity in one request are both appended: the aggregator counts one", async () => {
    const { app, log } = await startGateway();
    expect((await post(app, [NATIVE, NATIVE])).json()).toMatchObject({ accepted: 2 });
    expect(log.records).toHaveLength(2);
    expect(new Set(log.records.map(({ partition }) => partition)).size).toBe(1);
  });

  test("an event without time is stamped, and only the gateway says so", async () => {
    const { app, log } = await startGateway();
    await post(app, [NATIVE, { ...CLOUD, stamped: true, time: "2026-11-20T09:00:00Z" }, { ...CLOUD, stamped: false }]);
    expect(eventsOf(log).map(({ occurredAt, isStamped }) => [occurredAt, isStamped])).toEqual([
      [NOW, true],
      [NOW - 3_600_000, false],
      [NOW, true],
    ]);
  });

  test("the mode is the credential's", async () => {
    const { app, log } = await startGateway();
    await post(app, NATIVE, { authorization: `Bearer ${TEST}` });
    await post(app, { ...CLOUD, mode: "test" }, { authorization: "", "x-api-key": TEST });
    await post(app, { ...CLOUD, mode: "live" }, { authorization: `bearer ${LIVE}` });
    expect(eventsOf(log).map(({ mode }) => mode)).toEqual(["test", "test", "live"]);
  });

  test("G4 numbers that a double cannot hold reach the log as they were sent", async () => {
    const { app, log } = await startGateway();
    const data = '{"a":12345678901234567890,"b":0.1234567890123456789,"c":[1e400,9007199254740993],"d":1.5}';
    const answer = await post(app, `{"id":"e","customer":"c","type":"t","data":${data}}`);
    expect(answer.statusCode).toBe(202);
    expect(log.records[0]?.value?.toString()).toContain(`"data":${data}`);
  });

  test("attributes of a CloudEvent are passed on", async () => {
    const { app, log } = await startGateway();
    await post(app, {
      ...CLOUD,
      traceparent: "00-1",
      dataschema: "https://example.org/s",
      decidedat: "2026-11-20T09:59:59.5Z",
    });
    expect(JSON.parse((log.records[0]?.value ?? "").toString())).toMatchObject({
      traceparent: "00-1",
      dataschema: "https://example.org/s",
      decidedat: "2026-11-20T09:59:59.500Z",
    });
  });
});

describe("what is rejected", () => {
  test("a bad event names its field and rule, and leaves its neighbours alone", async () => {
    const { app, log, metrics } = await startGateway();
    const answer = await post(app, [
      NATIVE,
      { ...NATIVE, id: "" },
      7,
      { ...NATIVE, id: "evt-3", data: { __proto: {} } },
    ]);
    expect(answer.statusCode).toBe(202);
    expect(answer.json()).toEqual({
      results: [
        { id: "evt-1", status: "accepted" },
        { id: "", index: 1, status: "rejected", code: "FIELD_INVALID", pointer: "/id", message: "must not be empty" },
        {
          index: 2,
          status: "rejected",
          code: "EVENT_NOT_AN_OBJECT",
          pointer: "",
          message: "a usage event is a JSON object",
        },
        { id: "evt-3", status: "accepted" },
      ],
      accepted: 2,
      rejected: 2,
    });
    expect(eventsOf(log).map(({ id }) => id)).toEqual(["evt-1", "evt-3"]);
    expect(await metrics.metrics()).toMatch(/gateway_events_total\{result="rejected"\} 2/);
    expect(await metrics.metrics()).toMatch(/gateway_events_total\{result="accepted"\} 2/);
  });

  const deep = `${'{"a":'.repeat(40)}1${"}".repeat(40)}`;
  const wide = JSON.stringify(Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`p${i}`, i])));
  test.each([
    ["EVENT_NOT_AN_OBJECT", "", "[]"],
    ["FIELD_MISSING", "/customer", '{"id":"b","type":"t"}'],
    ["FIELD_INVALID", "/data", '{"id":"b","customer":"c","type":"t","data":[]}'],
    ["FIELD_UNKNOWN", "/mode", '{"id":"b","customer":"c","type":"t","mode":"test"}'],
    ["FIELD_TOO_LONG", "/id", `{"id":"${"x".repeat(257)}","customer":"c","type":"t"}`],
    ["EVENT_TOO_LARGE", "", `{"id":"b","customer":"c","type":"t","data":{"v":"${"x".repeat(65_536)}"}}`],
    ["DATA_TOO_DEEP", `/data${"/a".repeat(32)}`, `{"id":"b","customer":"c","type":"t","data":${deep}}`],
    ["DATA_TOO_MANY_PROPERTIES", "/data", `{"id":"b","customer":"c","type":"t","data":${wide}}`],
    ["NAME_FORBIDDEN", "/data/__proto__", '{"id":"b","customer":"c","type":"t","data":{"__proto__":1}}'],
    ["TIME_INVALID", "/time", '{"id":"b","customer":"c","type":"t","time":"2026-02-30T00:00:00Z"}'],
    ["MODE_MISMATCH", "/mode", JSON.stringify({ ...CLOUD, mode: "test" })],
  ])("%s at %s, between two that are accepted", async (code, pointer, bad) => {
    const { app, log } = await startGateway();
    const answer = await post(app, `[${JSON.stringify(NATIVE)},${bad},${JSON.stringify({ ...NATIVE, id: "evt-3" })}]`);
    expect(answer.statusCode).toBe(202);
    const { results } = answer.json() as { results: object[] };
    expect(results.map((result) => Object.entries(result).flat().slice(0, 4).includes("accepted"))).toEqual([
      true,
      false,
      true,
    ]);
    expect(results[1]).toMatchObject({ index: 1, status: "rejected", code, pointer });
    expect(eventsOf(log).map(({ id }) => id)).toEqual(["evt-1", "evt-3"]);
  });

  test("when all are rejected nothing is appended, and the answer is a problem with the same results", async () => {
    const { app, log } = await startGateway();
    const answer = await post(app, [
      { ...NATIVE, time: "x" },
      { ...NATIVE, id: 5 },
    ]);
    expect(problemOf(answer)).toBe("400 EVENTS_REJECTED");
    expect(answer.json()).toMatchObject({
      accepted: 0,
      rejected: 2,
      results: [
        { id: "evt-1", index: 0, code: "TIME_INVALID", pointer: "/time" },
        { index: 1, code: "FIELD_INVALID", pointer: "/id" },
      ],
    });
    expect(log.records).toHaveLength(0);
  });

  test("the CloudEvents media types take CloudEvents only", async () => {
    const { app } = await startGateway();
    for (const [body, headers] of [
      [NATIVE, CLOUD_ONE],
      [[NATIVE], CLOUD_BATCH],
    ] as const) {
      const answer = await post(app, body, headers);
      expect(problemOf(answer)).toBe("400 EVENTS_REJECTED");
      expect(answer.json()).toMatchObject({ results: [{ code: "FIELD_MISSING", pointer: "/specversion" }] });
    }
  });
});

describe("limits of a request, at the value and one beyond", () => {
  test("body bytes", async () => {
    const { app } = await startGateway();
    const body = JSON.stringify(NATIVE);
    expect((await post(app, body.padEnd(1_000_000))).statusCode).toBe(202);
    expect(problemOf(await post(app, body.padEnd(1_000_001)))).toBe("413 BODY_TOO_LARGE");
  });

  test("events", async () => {
    const { app, log } = await startGateway();
    const events = (count: number): object[] => Array.from({ length: count }, (_, i) => ({ ...NATIVE, id: `e${i}` }));
    expect((await post(app, events(500))).json()).toMatchObject({ accepted: 500, rejected: 0 });
    expect(problemOf(await post(app, events(501)))).toBe("413 TOO_MANY_EVENTS");
    expect(log.records).toHaveLength(500);
  });

  test("event bytes, as stored", async () => {
    const { app, log } = await startGateway();
    const sized = (characters: number): object => ({ ...NATIVE, data: { v: "x".repeat(characters - 1) + "ü" } });
    await post(app, sized(100));
    const overhead = (log.records[0]?.value?.length ?? 0) - 100;
    const fitting = USAGE_EVENT_LIMITS.eventBytesMax - overhead;
    expect((await post(app, sized(fitting))).statusCode).toBe(202);
    expect(log.records[1]?.value).toHaveLength(USAGE_EVENT_LIMITS.eventBytesMax);
    const answer = await post(app, [NATIVE, sized(fitting + 1)]);
    expect(answer.json()).toMatchObject({ results: [{}, { code: "EVENT_TOO_LARGE", pointer: "" }] });
  });
});

describe("bodies that hold no events", () => {
  test.each([
    ["empty", "", {}, "400 BODY_INVALID"],
    ["an empty list", "[]", {}, "400 BODY_INVALID"],
    ["an empty batch", "[]", CLOUD_BATCH, "400 BODY_INVALID"],
    ["a list where one event belongs", JSON.stringify([CLOUD]), CLOUD_ONE, "400 BODY_INVALID"],
    ["one event where a list belongs", JSON.stringify(CLOUD), CLOUD_BATCH, "400 BODY_INVALID"],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0x22]), {}, "400 BODY_INVALID"],
    ["deeper than numbers can be kept", `${"[".repeat(600)}9007199254740993${"]".repeat(600)}`, {}, "400 BODY_INVALID"],
    [
      "another media type",
      "id=1",
      { "content-type": "application/x-www-form-urlencoded" },
      "415 CONTENT_TYPE_UNSUPPORTED",
    ],
    ["text", "{}", { "content-type": "text/plain" }, "415 CONTENT_TYPE_UNSUPPORTED"],
    ["a coding that is not ours", "{}", { "content-encoding": "br" }, "415 CONTENT_ENCODING_UNSUPPORTED"],
  ] as const)("%s", async (...[, body, headers, expected]) => {
    const { app, log } = await startGateway();
    expect(problemOf(await post(app, body, headers))).toBe(expected);
    expect(log.records).toHaveLength(0);
  });

  test("broken JSON says where", async () => {
    const { app } = await startGateway();
    const answer = await post(app, '[\n  {"id": "a",\n   "customer": nobody}\n]');
    expect(problemOf(answer)).toBe("400 BODY_INVALID");
    expect(answer.json().detail).toBe("the body is no JSON: line 3, column 16 (position 31)");
  });
});

describe("credentials", () => {
  test.each([
    ["none", { authorization: "" }, "401 AUTH_REQUIRED"],
    ["another scheme", { authorization: "Basic abc" }, "401 AUTH_REQUIRED"],
    ["unknown", { authorization: "Bearer svc_live_th_unknown_unknown_x" }, "401 AUTH_INVALID"],
    ["malformed", { authorization: "Bearer x" }, "401 AUTH_INVALID"],
    ["unknown key", { authorization: "", "x-api-key": "x" }, "401 AUTH_INVALID"],
  ])("%s", async (_name, headers, expected) => {
    const { app } = await startGateway();
    const answer = await post(app, NATIVE, headers);
    expect(problemOf(answer)).toBe(expected);
    expect(answer.headers["www-authenticate"]).toMatch(/^Bearer /);
  });
});
