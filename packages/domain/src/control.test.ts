import { describe, expect, test } from "vitest";
import {
  CONTROL_HEADER,
  CONTROL_MAC_HEADER,
  type ControlFact,
  type ControlReading,
  decodeControl,
  encodeControl,
  isControl,
  readCorrectedEvent,
} from "./control.ts";
import type { LogRecord } from "./event-log.ts";
import { MeterRuleSchema } from "./meter.ts";

const key = { name: "k:1", secret: Buffer.from("secret one") };
const oldKey = { name: "k0", secret: Buffer.from("secret zero") };
const activate: ControlFact = {
  kind: "meter.activate",
  mode: "live",
  meter: "input_tokens",
  version: 1,
  rule: MeterRuleSchema.parse({
    key: "input_tokens",
    eventType: "llm.request",
    aggregation: "sum",
    value: "/inputTokens",
    where: [{ path: "/status", in: ["200"] }],
    dimensions: { model: "/model", region: "/region" },
    from: "2000-01-01T00:00:00Z",
  }),
};
const corrected = JSON.stringify({
  specversion: "1.0",
  id: "e1",
  source: "api",
  type: "llm.request",
  subject: "acme",
  time: "2026-11-20T10:00:00.000Z",
  data: { inputTokens: 1 },
}).replace(":1}", ":12345678901234567890.5}");
const facts: readonly ControlFact[] = [
  activate,
  { kind: "tick" },
  { kind: "meter.end", mode: "live", meter: "input_tokens", version: 1, until: "2026-12-01T00:00:00Z" },
  { kind: "void", offset: 7, event: corrected },
  { kind: "replace", offset: 7, event: corrected, replacement: corrected.replace("e1", "e2") },
  { kind: "stream.close" },
];
const record = encodeControl({ fact: activate, partition: 3, key });
const decode = (changed: Partial<LogRecord>, partition = 3): ControlReading =>
  decodeControl({ entry: { ...record, ...changed }, partition, keys: [oldKey, key] });
const withHeader = (name: string, text: string): Partial<LogRecord> => ({
  headers: { ...record.headers, [name]: Buffer.from(text) },
});
const mac = record.headers[CONTROL_MAC_HEADER]?.toString() ?? "";

describe("control records", () => {
  test("every fact is read back as it was, under every key that is known", () => {
    for (const fact of facts) {
      for (const signer of [key, oldKey]) {
        const entry = encodeControl({ fact, partition: 7, key: signer });
        expect(isControl(entry)).toBe(true);
        expect(decodeControl({ entry, partition: 7, keys: [oldKey, key] })).toEqual({ kind: "control", fact });
      }
    }
    expect(isControl({ headers: {} })).toBe(false);
  });

  test("equal input gives equal bytes, so a record sent twice is one fact", () => {
    expect(encodeControl({ fact: activate, partition: 3, key })).toEqual(record);
  });

  test.each([
    ["moved to another partition", {}, 4],
    ["another kind", withHeader(CONTROL_HEADER, "tick"), 3],
    ["another value", { value: Buffer.from((record.value ?? "").toString().replace('"live"', '"test"')) }, 3],
    ["no value", { value: null }, 3],
    ["no signature", { headers: { [CONTROL_HEADER]: Buffer.from("tick") } }, 3],
    ["an unknown key", withHeader(CONTROL_MAC_HEADER, mac.replace("k:1", "k2")), 3],
    ["another known key's name", withHeader(CONTROL_MAC_HEADER, mac.replace("k:1", "k0")), 3],
    ["a cut signature", withHeader(CONTROL_MAC_HEADER, mac.slice(0, -2)), 3],
    ["a longer signature", withHeader(CONTROL_MAC_HEADER, `${mac}00`), 3],
    ["rubbish after the signature", withHeader(CONTROL_MAC_HEADER, `${mac}zz`), 3],
    ["the signature in capitals", withHeader(CONTROL_MAC_HEADER, mac.toUpperCase().replace("K:1", "k:1")), 3],
  ])("%s is invalid", (_name, changed, partition) => {
    expect(decode(changed, partition)).toMatchObject({ kind: "invalid", rule: expect.stringMatching(/signature$/) });
  });

  test("G4 a corrected usage event keeps its numbers digit by digit", () => {
    expect(JSON.stringify(readCorrectedEvent(corrected)?.data)).toBe('{"inputTokens":12345678901234567890.5}');
    expect(readCorrectedEvent(corrected)).toMatchObject({ customer: "acme", occurredAt: Date.UTC(2026, 10, 20, 10) });
  });

  test("a signed record of another shape is invalid, never a crash", () => {
    const shapes: unknown[] = [
      { kind: "tick", extra: 1 },
      { kind: "meter.void" },
      { ...activate, version: 0 },
      { ...activate, version: 65_536 },
      { ...activate, rule: { key: "x" } },
      { kind: "meter.end", mode: "live", meter: "m", version: 1, until: "soon" },
      { kind: "void", offset: -1, event: corrected },
      { kind: "void", offset: 1, event: "{}" },
      { kind: "void", offset: 1, event: corrected.replace(/"time":"[^"]*",/, "") },
      { kind: "replace", offset: 1, event: corrected },
      { kind: "stream.close", until: "now" },
    ];
    for (const fact of shapes) {
      const entry = encodeControl({ fact: fact as ControlFact, partition: 0, key });
      expect(decodeControl({ entry, partition: 0, keys: [key] })).toMatchObject({
        kind: "invalid",
        rule: expect.stringContaining("unknown shape"),
      });
    }
  });
});
