import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeUsageRecord, RECORD_BYTES_MAX } from "./record.ts";
import type { EventReading } from "./usage-event.ts";

const cloud = { specversion: "1.0", id: "evt-1", source: "/api", type: "llm.request", subject: "cus_1" };

function decode(value: string | Buffer | null, headers: Record<string, string | Buffer> = {}): EventReading {
  return decodeUsageRecord({
    value: value === null ? null : Buffer.from(value as string),
    headers: Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text as string)])),
  });
}
function verdict(reading: EventReading): string {
  return reading.kind === "event" ? "accepted" : `${reading.rejection.code} ${reading.rejection.pointer}`;
}

describe("structured mode", () => {
  test.each([
    ["no value", null],
    ["an empty value", ""],
    ["no JSON", "{"],
    ["a list", "[]"],
    ["the native shape", JSON.stringify({ id: "a", customer: "b", type: "c" })],
    ["bytes that are no UTF-8", Buffer.from([0x7b, 0xff, 0x7d])],
    ["nested beyond what can be parsed", `{"v":${"[".repeat(100_000)}9007199254740993${"]".repeat(100_000)}}`],
  ])("%s is invalid, never a crash", (_name, value) => {
    expect(verdict(decode(value))).toBe("EVENT_NOT_AN_OBJECT ");
  });

  test("a CloudEvent without mode is live", () => {
    expect(decode(JSON.stringify(cloud))).toMatchObject({ event: { mode: "live", customer: "cus_1" } });
    expect(decode(JSON.stringify({ ...cloud, mode: "test" }))).toMatchObject({ event: { mode: "test" } });
  });

  test("the largest record, and one byte more", () => {
    const padded = (bytes: number): string => JSON.stringify(cloud).padEnd(bytes);
    expect(verdict(decode(padded(RECORD_BYTES_MAX)))).toBe("accepted");
    expect(verdict(decode(padded(RECORD_BYTES_MAX + 1)))).toBe("EVENT_TOO_LARGE ");
  });

  test("G1 headers count too: a misplaced record that no log takes again would stop its partition for ever", () => {
    const value = JSON.stringify(cloud);
    const room = RECORD_BYTES_MAX - value.length - "x-team".length - 10;
    expect(verdict(decode(value, { "x-team": "a".repeat(room) }))).toBe("accepted");
    expect(verdict(decode(value, { "x-team": "a".repeat(room + 1) }))).toBe("EVENT_TOO_LARGE ");
    const many = Object.fromEntries(Array.from({ length: 30_000 }, (_, n) => [String(n), ""]));
    expect(verdict(decode(value, many))).toBe("EVENT_TOO_LARGE ");
  });
});

describe("binary mode", () => {
  const headers = {
    ce_specversion: "1.0",
    ce_id: "evt-1",
    ce_source: "/api",
    ce_type: "llm.request",
    ce_subject: "cus_ü",
    "content-type": "application/json; charset=utf-8",
  };

  test("says the same as structured mode", () => {
    const binary = decode('{"inputTokens":12345678901234567890}', {
      ...headers,
      ce_stamped: "true",
      ce_traceparent: "00",
    });
    const structured = decode(
      JSON.stringify({ ...cloud, subject: "cus_ü", stamped: "true", traceparent: "00" }).replace(
        /\}$/,
        ',"data":{"inputTokens":12345678901234567890}}',
      ),
    );
    expect(binary.kind).toBe("event");
    expect(JSON.stringify(binary)).toBe(JSON.stringify(structured));
  });

  test.each([
    { name: "without data", value: null, given: headers, expected: "accepted" },
    {
      name: "other headers are no attributes",
      value: null,
      given: { ...headers, "x-team": "a" },
      expected: "accepted",
    },
    { name: "no subject", value: null, given: { ...headers, ce_subject: "" }, expected: "FIELD_INVALID /subject" },
    { name: "data that is no object", value: "[1]", given: headers, expected: "FIELD_INVALID /data" },
    { name: "data that is no JSON", value: "{", given: headers, expected: "EVENT_NOT_AN_OBJECT " },
    {
      name: "another media type",
      value: "{}",
      given: { ...headers, "content-type": "text/plain" },
      expected: "FIELD_INVALID /datacontenttype",
    },
    {
      name: "a header that is no UTF-8",
      value: "{}",
      given: { ...headers, ce_id: Buffer.from([0xff]) },
      expected: "EVENT_NOT_AN_OBJECT ",
    },
    {
      name: "a forbidden name",
      value: "{}",
      given: { ...headers, ["ce___proto__"]: "x" },
      expected: "NAME_FORBIDDEN /__proto__",
    },
  ])("$name", ({ value, given, expected }) => {
    expect(verdict(decode(value, given))).toBe(expected);
  });
});

test("any bytes and headers have one answer, and never throw", () => {
  const header = fc.tuple(
    fc.constantFrom(
      "ce_specversion",
      "ce_id",
      "ce_source",
      "ce_subject",
      "ce_type",
      "ce_time",
      "ce_data",
      "content-type",
    ),
    fc.uint8Array({ maxLength: 12 }),
  );
  const value = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.json().map((text) => Buffer.from(text)),
  );
  fc.assert(
    fc.property(fc.option(value), fc.array(header, { maxLength: 6 }), (bytes, pairs) => {
      const entry = {
        value: bytes === null ? null : Buffer.from(bytes),
        headers: Object.fromEntries(pairs.map(([name, text]) => [name, Buffer.from(text)])),
      };
      expect(decodeUsageRecord(entry)).toEqual(decodeUsageRecord(entry));
    }),
    { numRuns: 2_000 },
  );
});
