import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson } from "./json.ts";
import { decodeUsageRecord } from "./record.ts";
import { encodeUsageEvent, type EventReading, readUsageEvent, USAGE_EVENT_LIMITS } from "./usage-event.ts";

const native = { id: "evt-1", customer: "cus_1", type: "llm.request", data: { inputTokens: 10 } };
const cloud = { specversion: "1.0", id: "evt-1", source: "/api", type: "llm.request", subject: "cus_1" };

/** `code pointer` of a refusal, or "accepted". */
function verdict(reading: EventReading): string {
  return reading.kind === "event" ? "accepted" : `${reading.rejection.code} ${reading.rejection.pointer}`;
}
const read = (input: unknown): string => verdict(readUsageEvent(input, "live"));

function nested(levels: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < levels; level += 1) value = level % 2 === 0 ? { a: value } : [value];
  return value;
}
const properties = (count: number): object => Object.fromEntries(Array.from({ length: count }, (_, i) => [`p${i}`, i]));

const oddTexts = [
  "",
  "a",
  "ü",
  "a/b",
  "x".repeat(128),
  "x".repeat(129),
  "x".repeat(256),
  "x".repeat(257),
  "😀",
  "\ud800",
  "a\u0000",
];
const oddText = fc.constantFrom<unknown>("evt-1", "evt-2", ...oddTexts, "a\u0085", " ", 1, null, undefined);
const oddTime = fc.constantFrom<unknown>(
  "2026-11-20T10:00:00Z",
  "2026-11-20T10:00:00.5+01:00",
  "soon",
  "",
  null,
  5,
  undefined,
);

test("a plain CloudEvent is read as the schema reads it", () => {
  const cloudEvent = fc.record({
    specversion: fc.constantFrom<unknown>("1.0", "1.0", "1.0", "0.3"),
    id: oddText,
    source: fc.constantFrom<unknown>("/api", "a\u007f"),
    type: fc.constantFrom<unknown>("t", "x".repeat(128), "x".repeat(129), ""),
    subject: fc.constantFrom<unknown>("cus_1", ["cus_1"]),
    time: oddTime,
    datacontenttype: fc.constantFrom<unknown>("application/json", undefined, null, "text/plain", "application/x+json"),
    mode: fc.constantFrom<unknown>(undefined, "live", "test", null, "prod"),
    stamped: fc.constantFrom<unknown>(undefined, "true", true, "false", "yes"),
    decidedat: oddTime,
    data: fc.constantFrom<unknown>({}, { a: 1 }, { a: { b: [1] } }, { constructor: 1 }, [], null, undefined, "x"),
  });
  let accepted = 0;
  fc.assert(
    fc.property(cloudEvent, (event) => {
      const plain = readUsageEvent(event, "live");
      // An attribute of the sender's own keeps the event from being plain.
      const general = readUsageEvent({ ...event, own: "x" }, "live");
      accepted += plain.kind === "event" ? 1 : 0;
      expect(plain).toEqual(general.kind === "event" ? { ...general, extensions: {} } : general);
    }),
    { numRuns: 5_000 },
  );
  expect(accepted).toBeGreaterThan(10);
});

describe("the native shape", () => {
  test("reads every field; source is api, time and data may be absent", () => {
    expect(readUsageEvent({ id: "a", customer: "b", type: "c" }, "test")).toEqual({
      kind: "event",
      extensions: {},
      event: {
        mode: "test",
        customer: "b",
        source: "api",
        id: "a",
        type: "c",
        occurredAt: null,
        isStamped: false,
        decidedAt: null,
        data: {},
      },
    });
    const full = readUsageEvent({ ...native, source: "s", time: "2026-11-20T10:00:00.1239Z", data: null }, "live");
    expect(full).toMatchObject({ event: { source: "s", occurredAt: Date.UTC(2026, 10, 20, 10, 0, 0, 123), data: {} } });
  });

  test.each([
    ["an event that is no object", [], "EVENT_NOT_AN_OBJECT "],
    ["null", null, "EVENT_NOT_AN_OBJECT "],
    ["a number too long for a double", parseJson("12345678901234567890"), "EVENT_NOT_AN_OBJECT "],
    ["no id", { customer: "b", type: "c" }, "FIELD_MISSING /id"],
    ["id null", { ...native, id: null }, "FIELD_INVALID /id"],
    ["id a number", { ...native, id: 7 }, "FIELD_INVALID /id"],
    ["id empty", { ...native, id: "" }, "FIELD_INVALID /id"],
    ["no customer", { id: "a", type: "c" }, "FIELD_MISSING /customer"],
    ["no type", { id: "a", customer: "c" }, "FIELD_MISSING /type"],
    ["control character in customer", { ...native, customer: "a\u0000" }, "FIELD_INVALID /customer"],
    ["half a character in source", { ...native, source: "\ud800" }, "FIELD_INVALID /source"],
    ["time a number", { ...native, time: 1_763_632_800 }, "FIELD_INVALID /time"],
    ["time no instant", { ...native, time: "yesterday" }, "TIME_INVALID /time"],
    ["time beyond four-digit years", { ...native, time: "9999-12-31T23:59:59-01:00" }, "TIME_INVALID /time"],
    ["data text", { ...native, data: "x" }, "FIELD_INVALID /data"],
    ["data a list", { ...native, data: [] }, "FIELD_INVALID /data"],
    ["unknown field", { ...native, "a/b": 1 }, "FIELD_UNKNOWN /a~1b"],
    ["mode is the credential's", { ...native, mode: "live" }, "FIELD_UNKNOWN /mode"],
  ])("%s", (_name, input, expected) => {
    expect(read(input)).toBe(expected);
  });
});

describe("limits, at the value and one beyond", () => {
  const { identityCharactersMax, typeCharactersMax, depthMax, propertiesMax } = USAGE_EVENT_LIMITS;

  test.each(["id", "customer", "source"])("%s", (field) => {
    expect(read({ ...native, [field]: "x".repeat(identityCharactersMax) })).toBe("accepted");
    expect(read({ ...native, [field]: "x".repeat(identityCharactersMax + 1) })).toBe(`FIELD_TOO_LONG /${field}`);
  });

  test("type", () => {
    expect(read({ ...native, type: "x".repeat(typeCharactersMax) })).toBe("accepted");
    expect(read({ ...native, type: "x".repeat(typeCharactersMax + 1) })).toBe("FIELD_TOO_LONG /type");
  });

  test("depth: data is the first level", () => {
    expect(read({ ...native, data: { a: nested(depthMax - 1) } })).toBe("accepted");
    expect(read({ ...native, data: { a: nested(depthMax) } })).toMatch(/^DATA_TOO_DEEP \/data\/a\//);
    expect(read({ ...native, data: { a: nested(10_000) } })).toMatch(/^DATA_TOO_DEEP /);
  });

  test("properties, at every depth together", () => {
    expect(read({ ...native, data: properties(propertiesMax) })).toBe("accepted");
    expect(read({ ...native, data: properties(propertiesMax + 1) })).toBe("DATA_TOO_MANY_PROPERTIES /data");
    const split = (count: number): object => ({ list: [properties(10), properties(10)], rest: properties(count) });
    expect(read({ ...native, data: split(propertiesMax - 22) })).toBe("accepted");
    expect(read({ ...native, data: split(propertiesMax - 21) })).toBe("DATA_TOO_MANY_PROPERTIES /data");
    expect(read({ ...native, data: properties(100_000) })).toBe("DATA_TOO_MANY_PROPERTIES /data");
  });
});

test.each(["__proto__", "constructor", "prototype"])("%s is refused as a name at any depth", (name) => {
  const withName = (text: string): string => read(parseJson(text.replaceAll("NAME", name)));
  expect(withName('{"id":"a","customer":"b","type":"c","NAME":{}}')).toBe(`NAME_FORBIDDEN /${name}`);
  expect(withName('{"specversion":"1.0","id":"a","source":"s","subject":"b","type":"c","NAME":1}')).toBe(
    `NAME_FORBIDDEN /${name}`,
  );
  expect(withName('{"id":"a","customer":"b","type":"c","data":{"x":[{"NAME":1}]}}')).toBe(
    `NAME_FORBIDDEN /data/x/0/${name}`,
  );
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

describe("CloudEvents", () => {
  test.each([
    ["another version", { ...cloud, specversion: "0.3" }, "FIELD_INVALID /specversion"],
    ["no subject", { ...cloud, subject: undefined }, "FIELD_MISSING /subject"],
    ["no source", { ...cloud, source: undefined }, "FIELD_MISSING /source"],
    ["unknown mode", { ...cloud, mode: "prod" }, "FIELD_INVALID /mode"],
    ["data that is no JSON", { ...cloud, datacontenttype: "text/xml" }, "FIELD_INVALID /datacontenttype"],
    ["binary data", { ...cloud, data_base64: "AA==" }, "FIELD_INVALID /data_base64"],
    ["attribute in capitals", { ...cloud, traceParent: "x" }, "FIELD_UNKNOWN /traceParent"],
    ["attribute too long a name", { ...cloud, ["a".repeat(65)]: "x" }, `FIELD_UNKNOWN /${"a".repeat(65)}`],
    ["attribute that is a list", { ...cloud, trace: [] }, "FIELD_INVALID /trace"],
    ["decidedat no instant", { ...cloud, decidedat: "soon" }, "TIME_INVALID /decidedat"],
    ["media type with parameter", { ...cloud, datacontenttype: "application/vnd.x+json; charset=utf-8" }, "accepted"],
    ["nulls are absent", { ...cloud, time: null, data: null, mode: null, stamped: null }, "accepted"],
  ])("%s", (_name, input, expected) => {
    expect(verdict(readUsageEvent(JSON.parse(JSON.stringify(input)), "live"))).toBe(expected);
  });

  test("mode is the event's own, or the default", () => {
    expect(readUsageEvent({ ...cloud, mode: "test" }, "live")).toMatchObject({ event: { mode: "test" } });
    expect(readUsageEvent(cloud, "test")).toMatchObject({ event: { mode: "test" } });
  });

  test("attributes of the sender are kept, dataschema among them", () => {
    const extensions = { traceparent: "00-ab", retries: 3, final: true, dataschema: "https://example.org/s" };
    const reading = readUsageEvent({ ...cloud, ...extensions }, "live");
    expect(reading).toMatchObject({ extensions });
    if (reading.kind !== "event") return;
    expect(JSON.parse(encodeUsageEvent(reading.event, reading.extensions).toString())).toMatchObject(extensions);
  });
});

test("G1 G4 what is accepted is read back from the log as the same event, to the last digit", () => {
  const wellFormed = fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 40 })
    .filter((text) => !/\p{Cc}/u.test(text));
  const instant = fc
    .date({ min: new Date("0100-01-02T00:00:00Z"), max: new Date("9999-12-30T00:00:00Z"), noInvalidDate: true })
    .map((date) => date.toISOString().replace("Z", "456-00:30"));
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }).map((json) => JSON.stringify(json)),
    fc.constantFrom("12345678901234567890", "0.1234567890123456789", "1e400", "1.50", "0.30000000000000004"),
  );
  const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
    fc.option(arbitrary, { nil: undefined });
  const attributes = fc.record({
    id: wellFormed,
    source: wellFormed,
    type: wellFormed,
    subject: wellFormed,
    time: optional(instant),
    mode: optional(fc.constantFrom("live", "test")),
    decidedat: optional(instant),
    stamped: optional(fc.constantFrom(true, false, "true", "false")),
    dataschema: optional(wellFormed),
    traceparent: optional(fc.oneof(wellFormed, fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean())),
  });
  fc.assert(
    fc.property(attributes, fc.array(value, { maxLength: 4 }), (given, values) => {
      const data = values.map((text, i) => `"p${i}":${text}`).join(",");
      const text = JSON.stringify({ specversion: "1.0", ...given }).replace(/\}$/, () => `,"data":{${data}}}`);
      const sent = readUsageEvent(parseJson(text), "live");
      if (sent.kind === "rejected") {
        // Random data may hold a forbidden name or too many properties; everything else must pass.
        if (sent.rejection.pointer.startsWith("/data")) return;
        throw new Error(JSON.stringify(sent.rejection));
      }
      const stored = decodeUsageRecord({ value: encodeUsageEvent(sent.event, sent.extensions), headers: {} });
      expect(stored.kind).toBe("event");
      if (stored.kind !== "event") return;
      expect(stored.event).toEqual(sent.event);
      expect(stored.extensions).toEqual(sent.extensions);
      expect(JSON.stringify(stored.event.data)).toBe(JSON.stringify(sent.event.data));
    }),
    { numRuns: 1_000 },
  );
});
