/** The plain way and the whole way give the same records, results and refusals, whatever the body is. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { acceptEvents } from "./accept.ts";
import { type BodyReading, createLineReader, MEDIA_TYPES, type MediaType, readBody, readWholeBody } from "./body.ts";

const NOW = Date.UTC(2026, 10, 20, 10, 0, 0, 7);
const EVENTS_MAX = 5;

const texts = fc.oneof(
  { weight: 40, arbitrary: fc.stringMatching(/^[a-z0-9_.:/-]{1,12}$/) },
  { weight: 4, arbitrary: fc.string({ minLength: 1, maxLength: 12 }) },
  { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 8 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom("", "\u007f", "\u0085", "é", "日本", "\ud800", "a/b", '"', "\\", "x".repeat(300)),
  },
);
const times = fc.oneof(
  {
    weight: 10,
    arbitrary: fc
      .date({ noInvalidDate: true, min: new Date(0), max: new Date(7e12) })
      .map((date) => date.toISOString()),
  },
  fc.date({ noInvalidDate: true, min: new Date(-1e12), max: new Date(8e12) }).map((date) => date.toISOString()),
  fc.constantFrom(
    "2026-11-20T10:00:00Z",
    "2026-11-20T10:00:00.000Z",
    "2024-02-29T23:59:59Z",
    "2026-02-30T10:00:00Z",
    "2026-11-20T24:00:00Z",
    "2026-11-20T10:00:60Z",
    "2026-11-20T10:00:00.1234567Z",
    "2026-11-20T10:00:00+01:00",
    "2026-13-01T00:00:00Z",
    "not a time at all !!",
  ),
);
const numbers = fc.oneof(
  { weight: 10, arbitrary: fc.integer() },
  { weight: 5, arbitrary: fc.integer({ min: -1e6, max: 1e6 }).map((thousandths) => thousandths / 1_000) },
  fc.double(),
  fc.constantFrom(-0, 1e-6, 1e-7, 1.5e-6, 1e21, 2 ** 53, 123456789012.345, 0.1, 999999999999999, 1e15),
);
const names = fc.oneof(
  { weight: 40, arbitrary: fc.constantFrom("a", "b", "tokens", "model", "createdAt") },
  { weight: 2, arbitrary: texts },
  { weight: 1, arbitrary: fc.constantFrom("0", "12", "1x", "__proto__", "constructor", "prototype") },
);
const values = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(numbers, texts, fc.boolean(), fc.constant(null)),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(names, tie("value"), { maxKeys: 4 }),
  ),
})).value;
const data = fc.oneof(
  { weight: 20, arbitrary: fc.dictionary(names, values, { maxKeys: 5 }) },
  { weight: 1, arbitrary: values },
  { weight: 1, arbitrary: fc.dictionary(fc.string(), numbers, { minKeys: 30, maxKeys: 35 }) },
);
const native = fc.record(
  { id: texts, customer: texts, type: texts, source: texts, time: times, data },
  { requiredKeys: ["id", "customer", "type"] },
);
const cloud = fc.record(
  {
    specversion: fc.constantFrom(...Array.from({ length: 9 }, () => "1.0"), "0.3"),
    id: texts,
    source: texts,
    type: texts,
    subject: texts,
    time: times,
    datacontenttype: fc.constantFrom(...Array.from({ length: 9 }, () => "application/json"), "text/plain"),
    mode: fc.constantFrom("live", "live", "test", "Live"),
    data,
  },
  { requiredKeys: ["specversion", "id", "source", "type", "subject"] },
);
const extended = fc.record(
  { stamped: fc.constantFrom("true", true), decidedat: times, traceparent: texts },
  { requiredKeys: [] },
);
/** Members in any order, now and then one of them twice. */
const objects = fc
  .tuple(
    fc.oneof(
      { weight: 4, arbitrary: native },
      { weight: 4, arbitrary: cloud },
      { weight: 1, arbitrary: fc.tuple(cloud, extended).map(([event, more]) => ({ ...event, ...more })) },
    ),
    fc.array(fc.nat(), { maxLength: 3 }),
    fc.integer({ min: 0, max: 12 }),
  )
  .map(([event, swaps, twice]) => {
    const members = Object.entries(event).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
    for (const swap of swaps) members.push(...members.splice(swap % members.length, 1));
    const repeated = members[twice];
    if (twice > 9 && repeated !== undefined) members.push(repeated);
    return `{${members.join(",")}}`;
  });
const blanks = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom("", " ", "\n", "\t \r\n") },
  { weight: 1, arbitrary: fc.constantFrom("\u00a0", "\u000b") },
);
const lists = fc.tuple(fc.array(objects, { maxLength: 6 }), blanks, blanks).map(([events, before, between]) => {
  return `${before}[${events.join(`${between},${before}`)}${between}]${before}`;
});
/** Numbers as no JSON.stringify writes them, blanks between all tokens, a byte that is wrong, a cut, more behind the end. */
const mutations = fc.array(
  fc.oneof<fc.Arbitrary<(body: Buffer) => Buffer>[]>(
    fc
      .tuple(
        fc.constantFrom(":1.0", ":1e3", ":-0", ":01", ":0.0000001", ":1.", ":9007199254740993", ":.5", ":+1"),
        fc.nat(),
      )
      .map(([number, skip]) => (body: Buffer): Buffer => {
        let seen = 0;
        return Buffer.from(
          body.toString("latin1").replaceAll(/:-?\d+(?:\.\d+)?/g, (found) => (seen++ === skip % 3 ? number : found)),
          "latin1",
        );
      }),
    fc.constant((body: Buffer): Buffer =>
      Buffer.from(body.toString("latin1").replaceAll(/[,:{}[\]]/g, " $& \n"), "latin1"),
    ),
    fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })).map(([at, byte]) => (body: Buffer): Buffer => {
      const changed: Buffer = Buffer.from(body);
      if (changed.length > 0) changed[at % changed.length] = byte;
      return changed;
    }),
    fc.nat().map(
      (at) =>
        (body: Buffer): Buffer =>
          body.subarray(0, at % (body.length + 1)),
    ),
    fc.constantFrom("x", ",", "]", "{}").map(
      (more) =>
        (body: Buffer): Buffer =>
          Buffer.concat([body, Buffer.from(more)]),
    ),
  ),
  { maxLength: 2 },
);
const bodies = fc
  .tuple(
    fc.oneof(lists, objects),
    fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: mutations }),
  )
  .map(([text, changes]) => {
    const well = Buffer.from(text.isWellFormed() ? text : text.toWellFormed());
    return changes.reduce<Buffer>((body, change) => change(body), well);
  });
const mediaTypes = fc.constantFrom(
  ...(Object.keys(MEDIA_TYPES) as MediaType[]).filter((mediaType) => !MEDIA_TYPES[mediaType].isLines),
);

function outcomeOf(reading: BodyReading, mode: "live" | "test"): unknown {
  if (reading.kind === "problem") return reading;
  const context = { mode, cloudEventsOnly: reading.isCloudEventsOnly, receivedAt: NOW, partitionCount: 16 };
  return acceptEvents(reading.events, context).map((acceptance) => {
    if (acceptance.kind === "rejected") return acceptance;
    const { key, value, ...rest } = acceptance.record;
    return { ...acceptance, record: { ...rest, key: key?.toString("hex"), value: value?.toString("hex") } };
  });
}

test("what is read as plain is what the whole reader and the schema make of it, byte for byte", () => {
  let plain = 0;
  let parsedBeside = 0;
  fc.assert(
    fc.property(bodies, mediaTypes, fc.constantFrom("live", "live", "test"), (body, mediaType, mode) => {
      const fast = readBody(body, mediaType, EVENTS_MAX);
      if (fast.kind === "events") {
        const kinds = new Set(fast.events.map(({ kind }) => kind));
        if (kinds.has("plain")) plain += 1;
        if (kinds.size > 1) parsedBeside += 1;
      }
      expect(outcomeOf(fast, mode)).toEqual(outcomeOf(readWholeBody(body, mediaType, EVENTS_MAX), mode));
    }),
    { numRuns: 3_000 },
  );
  // Else the test compares the whole reader with itself.
  expect(plain).toBeGreaterThan(300);
  expect(parsedBeside).toBeGreaterThan(50);
});

test("events in lines become the same records as in a list", () => {
  let plain = 0;
  fc.assert(
    fc.property(fc.array(objects, { minLength: 1, maxLength: EVENTS_MAX }), (events) => {
      const reader = createLineReader(EVENTS_MAX);
      reader.write(Buffer.from(events.join("\n")));
      const lines = reader.end();
      if (lines.kind === "events" && lines.events.some(({ kind }) => kind === "plain")) plain += 1;
      const list = readWholeBody(Buffer.from(`[${events.join(",")}]`), "application/json", EVENTS_MAX);
      expect(outcomeOf(lines, "live")).toEqual(outcomeOf(list, "live"));
    }),
    { numRuns: 500 },
  );
  expect(plain).toBeGreaterThan(100);
});

test("a plain batch takes the plain way, event by event, blanks and nested data too", () => {
  const event = (n: number) => ({
    id: `e${n}`,
    customer: "c",
    type: "t",
    data: { a: n, b: { c: [1.5, "é", null, true] } },
  });
  const body = Buffer.from(JSON.stringify([event(1), event(2)], null, 2));
  const reading = readBody(body, "application/json", EVENTS_MAX);
  expect(reading.kind === "events" && reading.events.map(({ kind }) => kind)).toEqual(["plain", "plain"]);
});
