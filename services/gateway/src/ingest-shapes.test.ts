import { randomBytes } from "node:crypto";
import { deflateSync, gzipSync } from "node:zlib";
import { USAGE_EVENT_LIMITS } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { createLineReader, type EventInput } from "./body.ts";
import { eventsOf, listen, LIVE, NATIVE, openConnection, post, problemOf, startGateway } from "./test-gateway.ts";

const NDJSON = { "content-type": "application/x-ndjson" };
const lineOf = (id: string): string => JSON.stringify({ ...NATIVE, id });

describe("newline-delimited JSON", () => {
  test.each(["application/x-ndjson", "application/ndjson", "application/jsonl; charset=utf-8"])("%s", async (type) => {
    const { app, log } = await startGateway();
    const answer = await post(app, `${lineOf("a")}\r\n\n${lineOf("b")}`, { "content-type": type });
    expect(answer.statusCode).toBe(202);
    expect(answer.json()).toEqual({
      results: [
        { id: "a", status: "accepted" },
        { id: "b", status: "accepted" },
      ],
      accepted: 2,
      rejected: 0,
    });
    expect(eventsOf(log).map(({ id }) => id)).toEqual(["a", "b"]);
  });

  test("a broken line is its own rejection, in its place; its neighbours are accepted", async () => {
    const { app, log } = await startGateway();
    const lines = [
      Buffer.from(lineOf("a")),
      Buffer.from('{"id":"b", oops}'),
      Buffer.from([0x22, 0xff, 0x22]),
      Buffer.from("x".repeat(70_000)),
      Buffer.from("7"),
      Buffer.from(lineOf("c")),
    ];
    const answer = await post(app, Buffer.concat(lines.flatMap((line) => [line, Buffer.from("\n")])), NDJSON);
    expect(answer.statusCode).toBe(202);
    const broken = (index: number, code: string, message: string) => ({
      index,
      status: "rejected",
      code,
      pointer: "",
      message,
    });
    expect(answer.json()).toEqual({
      results: [
        { id: "a", status: "accepted" },
        broken(1, "EVENT_NOT_AN_OBJECT", "the line is no JSON: column 12"),
        broken(2, "EVENT_NOT_AN_OBJECT", "the line is not UTF-8 text"),
        broken(3, "EVENT_TOO_LARGE", "a line has at most 65536 bytes"),
        broken(4, "EVENT_NOT_AN_OBJECT", "a usage event is a JSON object"),
        { id: "c", status: "accepted" },
      ],
      accepted: 2,
      rejected: 4,
    });
    expect(eventsOf(log).map(({ id }) => id)).toEqual(["a", "c"]);
  });

  test("lines are found however the bytes arrive", () => {
    const text = Buffer.from(`${lineOf("ü1")}\n\nnope\n${lineOf("ü2")}\n${"y".repeat(66_000)}\n${lineOf("ü3")}`);
    const readIn = (chunkBytes: number): readonly EventInput[] => {
      const reader = createLineReader(500);
      for (let at = 0; at < text.length; at += chunkBytes) {
        expect(reader.write(text.subarray(at, at + chunkBytes))).toBeNull();
      }
      const reading = reader.end();
      return reading.kind === "events" ? reading.events : [];
    };
    const whole = readIn(text.length);
    expect(whole.map(({ kind }) => kind)).toEqual(["parsed", "broken", "parsed", "broken", "parsed"]);
    for (const chunkBytes of [1, 2, 3, 7, 64, 1_000, 65_536]) expect(readIn(chunkBytes)).toEqual(whole);
  });

  test("a line at the limit and one byte beyond", () => {
    const { eventBytesMax } = USAGE_EVENT_LIMITS;
    for (const [bytes, kind] of [
      [eventBytesMax, "plain"],
      [eventBytesMax + 1, "broken"],
    ] as const) {
      const reader = createLineReader(1);
      reader.write(Buffer.from(lineOf("a").padEnd(bytes)));
      expect(reader.end()).toMatchObject({ kind: "events", events: [{ kind }] });
    }
  });

  test("one event too many ends the request before its body has ended", async () => {
    const { app, log } = await startGateway({ EVENTS_PER_REQUEST_MAX: 2 });
    const port = await listen(app);
    const { socket, received, ended } = await openConnection(port);
    const head = `POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${LIVE}\r\n`;
    socket.write(`${head}content-type: application/x-ndjson\r\ncontent-length: 900000\r\n\r\n1\n2\n3\n`);
    await until(() => received().startsWith("HTTP/1.1 413 "));
    expect(received()).toContain("TOO_MANY_EVENTS");
    // The rest of the body must not be taken for a request.
    await ended;
    expect(log.records).toHaveLength(0);
    await app.close();
  });
});

describe("CloudEvents in binary mode", () => {
  const CE = { "ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/api", "ce-type": "llm.request" };

  test("attributes in headers, percent-decoded once, older quotes unescaped; the body is the data", async () => {
    const { app, log } = await startGateway();
    const answer = await post(app, '{"inputTokens":12345678901234567890}', {
      ...CE,
      "ce-id": "%C3%BC%252F%20x",
      "ce-subject": '"cus \\"1\\""',
      "ce-time": "2026-11-20T09:00:00Z",
      "ce-region": "eu",
      "content-type": "application/json; charset=utf-8",
    });
    expect(answer.json()).toEqual({ results: [{ id: "ü%2F x", status: "accepted" }], accepted: 1, rejected: 0 });
    expect(eventsOf(log)).toMatchObject([{ customer: 'cus "1"', id: "ü%2F x", source: "/api", mode: "live" }]);
    const stored = (log.records[0]?.value ?? "").toString();
    expect(stored).toContain('"region":"eu"');
    // G4: the data's digits are the body's.
    expect(stored).toContain('"data":{"inputTokens":12345678901234567890}');
  });

  test("without a body it is an event without data; an Idempotency-Key may be its id", async () => {
    const { app, log } = await startGateway();
    const { "ce-id": _id, ...unnamed } = CE;
    const answer = await app.inject({
      method: "POST",
      url: "/v1/events",
      headers: { authorization: `Bearer ${LIVE}`, ...unnamed, "ce-subject": "c", "idempotency-key": '"k-1"' },
    });
    expect(answer.json()).toMatchObject({ accepted: 1, results: [{ id: "k-1" }] });
    expect(eventsOf(log)).toMatchObject([{ id: "k-1", data: {} }]);
  });

  test("in structured mode the body alone counts", async () => {
    const { app, log } = await startGateway();
    const structured = { "content-type": "application/cloudevents+json", "ce-id": "other", "ce-specversion": "1.0" };
    const cloud = { specversion: "1.0", id: "mine", source: "/s", type: "t", subject: "c" };
    expect((await post(app, cloud, structured)).statusCode).toBe(202);
    expect(eventsOf(log)).toMatchObject([{ id: "mine" }]);
  });
});

describe("Idempotency-Key", () => {
  const { id: _id, ...UNNAMED } = NATIVE;
  test.each([
    ["bare", "8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ["quoted", '"8e03 978e"', "8e03 978e"],
    ["quoted with escapes", '"a\\"b\\\\c"', 'a"b\\c'],
  ])("%s: gives the id that the body leaves out", async (_name, key, id) => {
    const { app, log } = await startGateway();
    for (const [body, type] of [
      [JSON.stringify(UNNAMED), "application/json"],
      [`[${JSON.stringify(UNNAMED)}]`, "application/json"],
      [`${JSON.stringify(UNNAMED)}\n`, "application/x-ndjson"],
      ['{"specversion":"1.0","source":"api","type":"t","subject":"cus_1"}', "application/cloudevents+json"],
    ] as const) {
      const answer = await post(app, body, { "idempotency-key": key, "content-type": type });
      expect(answer.json()).toMatchObject({ results: [{ id, status: "accepted" }] });
    }
    // Four copies of one identity: what a repeat is, only the aggregator decides.
    expect(new Set(log.records.map((record) => record.key?.toString()))).toEqual(new Set([`live/cus_1/api/${id}`]));
  });

  test("beside the same id it changes nothing", async () => {
    const { app, log } = await startGateway();
    expect((await post(app, NATIVE, { "idempotency-key": '"evt-1"' })).statusCode).toBe(202);
    expect(eventsOf(log)).toMatchObject([{ id: "evt-1" }]);
  });
});

describe("compressed bodies", () => {
  const LIST = JSON.stringify([
    { ...NATIVE, id: "a" },
    { ...NATIVE, id: "" },
    { ...NATIVE, id: "c" },
  ]);
  test.each([
    ["gzip", gzipSync(LIST)],
    ["x-gzip", gzipSync(LIST)],
    ["GZIP", gzipSync(LIST)],
    ["deflate", deflateSync(LIST)],
    ["identity", Buffer.from(LIST)],
    ["gzip", Buffer.concat([gzipSync(LIST.slice(0, 20)), gzipSync(LIST.slice(20))])],
  ])("%s is read as the same bytes plain", async (coding, bytes) => {
    const { app, log } = await startGateway();
    const answer = await post(app, bytes, { "content-encoding": coding });
    expect(answer.json()).toEqual((await post(app, LIST)).json());
    expect(eventsOf(log).map(({ id }) => id)).toEqual(["a", "c", "a", "c"]);
  });

  test("lines, compressed", async () => {
    const { app } = await startGateway();
    const lines = `${lineOf("a")}\nnope\n${lineOf("b")}\n`;
    const answer = await post(app, gzipSync(lines), { ...NDJSON, "content-encoding": "gzip" });
    expect(answer.json()).toMatchObject({ accepted: 2, rejected: 1, results: [{}, { index: 1, pointer: "" }, {}] });
  });

  test("262,144 bytes are taken whatever the ratio, beyond them twenty times the size", async () => {
    const { app } = await startGateway();
    const send = (padded: string) => post(app, gzipSync(padded), { "content-encoding": "gzip" });
    const alike = JSON.stringify(NATIVE);
    expect((await send(alike.padEnd(262_144))).statusCode).toBe(202);
    expect(problemOf(await send(alike.padEnd(262_145)))).toBe("413 BODY_TOO_LARGE");
    const mixed = JSON.stringify({ ...NATIVE, data: { text: randomBytes(20_000).toString("hex") } });
    const ratioOf = (padded: string): number => padded.length / gzipSync(padded).length;
    const step = 4_096;
    let bytes = 262_144;
    while (ratioOf(mixed.padEnd(bytes + step)) <= 20) bytes += step;
    expect(bytes).toBeGreaterThan(262_144);
    expect((await send(mixed.padEnd(bytes))).statusCode).toBe(202);
    expect(problemOf(await send(mixed.padEnd(bytes + step)))).toBe("413 BODY_TOO_LARGE");
  });

  test("five hundred events that differ in their id alone are no bomb", async () => {
    const { app } = await startGateway();
    const events = Array.from({ length: 500 }, (_, n) => ({ ...NATIVE, id: `alike-${n}` }));
    const body = gzipSync(JSON.stringify(events));
    expect(JSON.stringify(events).length / body.length).toBeGreaterThan(20);
    expect((await post(app, body, { "content-encoding": "gzip" })).json()).toMatchObject({
      accepted: 500,
      rejected: 0,
    });
  });

  test("what a body may become counts as in flight while it arrives, what it became from then on", async () => {
    const { app, log, metrics } = await startGateway();
    let letGo = (): void => undefined;
    log.onAppend = (_records, keep) =>
      new Promise((resolve) => {
        letGo = () => {
          keep();
          resolve();
        };
      });
    const answering = post(app, gzipSync(LIST), { "content-encoding": "gzip" });
    const inflight = async (): Promise<number> => Number(/inflight_bytes (\d+)/.exec(await metrics.metrics())?.[1]);
    await until(async () => (await inflight()) === LIST.length);
    letGo();
    expect((await answering).statusCode).toBe(202);
    await until(async () => (await inflight()) === 0);
    const tight = await startGateway({
      INFLIGHT_BYTES_MAX: 10_000,
      INFLATED_BYTES_MAX: 10_000,
      BODY_BYTES_MAX: 10_000,
    });
    const held = createHold();
    tight.log.onAppend = held.append;
    const first = post(tight.app, "[1]".padEnd(9_000).replace("[1]", lineOf("a")));
    await until(() => held.isWaiting());
    // 100 bytes, but 10,000 by their right.
    expect(problemOf(await post(tight.app, Buffer.alloc(100), { "content-encoding": "gzip" }))).toBe(
      "503 GATEWAY_OVERLOADED",
    );
    held.letGo();
    expect((await first).statusCode).toBe(202);
  });
});

function createHold() {
  let release: (() => void) | null = null;
  return {
    append: (_records: unknown, keep: () => void) =>
      new Promise<void>((resolve) => {
        release = () => {
          keep();
          resolve();
        };
      }),
    isWaiting: () => release !== null,
    letGo: () => release?.(),
  };
}
