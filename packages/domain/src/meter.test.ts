import { describe, expect, test } from "vitest";
import { parseJson } from "./json.ts";
import {
  compileMeter,
  type Contribution,
  DIMENSION_BYTES_MAX,
  meterDigest,
  type MeterRule,
  MeterRuleSchema,
  uniqueHashOf,
} from "./meter.ts";
import { formatQuantity } from "./quantity.ts";
import type { UsageEvent } from "./usage-event.ts";

const sum = {
  key: "input_tokens",
  eventType: "llm.request",
  aggregation: "sum",
  value: "/inputTokens",
  from: "2000-01-01T00:00:00Z",
};
const ruleOf = (changes: object = {}): MeterRule => MeterRuleSchema.parse({ ...sum, ...changes });
const problemsOf = (changes: object): string[] =>
  (MeterRuleSchema.safeParse({ ...sum, ...changes }).error?.issues ?? []).map((issue) => issue.path.join("."));

function contribution(rule: MeterRule, data: string): string {
  const result = contributionOf(rule, data);
  return result.kind === "quantity" ? [formatQuantity(result.quantity), ...result.dims].join("|") : result.kind;
}

function contributionOf(rule: MeterRule, data: string): Contribution {
  const event: UsageEvent = {
    mode: "live",
    customer: "c",
    source: "s",
    id: "i",
    type: "llm.request",
    occurredAt: 0,
    isStamped: false,
    decidedAt: null,
    data: parseJson(data) as UsageEvent["data"],
  };
  return compileMeter({ mode: "live", meter: rule.key, version: 1, rule }).contributionOf(event);
}

describe("MeterRuleSchema", () => {
  test("fills in the defaults and is stable when read again", () => {
    const rule = ruleOf({ where: [{ path: "/a", equals: 200 }], dimensions: { model: "/model" } });
    expect(rule).toMatchObject({ unit: "units", where: [{ path: "/a", equals: "200" }] });
    expect(MeterRuleSchema.parse(JSON.parse(JSON.stringify(rule)))).toEqual(rule);
  });

  test.each([
    ["key in capitals", { key: "Tokens" }, ["key"]],
    ["key of 64 characters", { key: "a".repeat(64) }, ["key"]],
    ["unknown aggregation", { aggregation: "median" }, ["aggregation"]],
    ["unknown field", { price: 1 }, [""]],
    ["sum without value", { value: undefined }, ["value"]],
    ["count with value", { aggregation: "count" }, ["value"]],
    ["value that is no pointer", { value: "inputTokens" }, ["value"]],
    ["bad escape in a pointer", { value: "/a~2" }, ["value"]],
    ["no from", { from: undefined }, ["from"]],
    ["from that is no instant", { from: "2026-11-01" }, ["from"]],
    ["condition with two tests", { where: [{ path: "/a", equals: 1, exists: true }] }, ["where.0"]],
    ["condition without a test", { where: [{ path: "/a" }] }, ["where.0"]],
    ["condition with an inexact number", { where: [{ path: "/a", equals: 2 ** 53 }] }, ["where.0.equals"]],
    ["dimension with a bad name", { dimensions: { __proto: "/a" } }, ["dimensions.__proto"]],
    [
      "nine dimensions",
      { dimensions: Object.fromEntries("abcdefghi".split("").map((n) => [n, "/x"])) },
      ["dimensions"],
    ],
    ["every problem at once", { key: "X", value: undefined, from: "x" }, ["key", "from", "value"]],
  ])("refuses %s", (_name, changes, paths) => {
    expect(problemsOf(changes)).toEqual(paths);
  });

  test("bounds are accepted", () => {
    expect(problemsOf({ key: "a".repeat(63) })).toEqual([]);
    expect(problemsOf({ dimensions: Object.fromEntries("abcdefgh".split("").map((n) => [n, "/x"])) })).toEqual([]);
    expect(problemsOf({ value: `/${"a".repeat(511)}` })).toEqual([]);
    expect(problemsOf({ value: `/${"a".repeat(512)}` })).toEqual(["value"]);
    expect(problemsOf({ aggregation: "count", value: undefined })).toEqual([]);
  });

  test("a hostile pointer is refused in no time", () => {
    expect(problemsOf({ value: `${"/".repeat(510)}~` })).toEqual(["value"]);
  });
});

describe("meterDigest", () => {
  test("changes with everything but the unit's text", () => {
    const base = ruleOf({ dimensions: { a: "/a", b: "/b" } });
    expect(meterDigest({ ...base, unit: "other" })).toBe(meterDigest(base));
    expect(meterDigest(JSON.parse(JSON.stringify(base)) as MeterRule)).toBe(meterDigest(base));
    expect(meterDigest({ ...base, value: "/b" })).not.toBe(meterDigest(base));
    // The order of dimensions is the order of dims.
    expect(meterDigest({ ...base, dimensions: { b: "/b", a: "/a" } })).not.toBe(meterDigest(base));
    const count = ruleOf({ aggregation: "count", value: undefined });
    expect(meterDigest({ ...count, value: undefined })).toBe(
      meterDigest(JSON.parse(JSON.stringify(count)) as MeterRule),
    );
  });
});

describe("contributions", () => {
  test("unique_count tells texts apart, numbers by what they mean, and cannot read a list", () => {
    const rule = ruleOf({ aggregation: "unique_count" });
    const uniqueOf = (data: string): string | null => {
      const result = contributionOf(rule, data);
      return result.kind === "quantity" ? result.uniqueText : result.kind;
    };
    expect(['{"inputTokens": "u1"}', '{"inputTokens": 1.50}', '{"inputTokens": true}'].map(uniqueOf)).toEqual([
      "u1",
      "1.5",
      "true",
    ]);
    expect(["{}", '{"inputTokens": null}', '{"inputTokens": [1]}'].map(uniqueOf)).toEqual(["none", "none", "invalid"]);
    // printf u1 | sha256sum, its first 16 bytes little-endian.
    expect(uniqueHashOf("u1")).toBe(99235337517659048998421804346606060219n);
    expect(contribution(rule, '{"inputTokens": "u1"}')).toBe("0");
  });

  test.each([
    ['{"inputTokens": 12}', "12"],
    ['{"inputTokens": "0.000000001"}', "0.000000001"],
    ['{"inputTokens": -3}', "-3"],
    ['{"inputTokens": 0.30000000000000004}', "0.3"],
    ["{}", "none"],
    ['{"inputTokens": null}', "none"],
    ['{"inputTokens": "many"}', "invalid"],
    ['{"inputTokens": true}', "invalid"],
    ['{"inputTokens": 12345678901234567890}', "invalid"],
    ['{"inputTokens": "12345678901234567890"}', "12345678901234567890"],
  ])("sum over %s is %s", (data, expected) => {
    expect(contribution(ruleOf(), data)).toBe(expected);
  });

  test("count is one, whatever the data", () => {
    expect(contribution(ruleOf({ aggregation: "count", value: undefined }), "{}")).toBe("1");
  });

  test("conditions compare as text, and all must hold", () => {
    const where = [
      { path: "/status", in: ["200", 206] },
      { path: "/ok", equals: true },
      { path: "/error", exists: false },
    ];
    const verdict = (data: string): string => contribution(ruleOf({ where }), data);
    expect(verdict('{"status": 200, "ok": true, "inputTokens": 1}')).toBe("1");
    expect(verdict('{"status": "206", "ok": "true", "error": null, "inputTokens": 1}')).toBe("1");
    expect(verdict('{"status": 2.06e2, "ok": true, "inputTokens": 1}')).toBe("1");
    expect(verdict('{"status": 404, "ok": true, "inputTokens": 1}')).toBe("none");
    expect(verdict('{"status": 200, "ok": true, "error": "", "inputTokens": 1}')).toBe("none");
    expect(verdict('{"ok": true, "inputTokens": 1}')).toBe("none");
    // A condition that fails hides an unreadable value: the event is not this meter's.
    expect(verdict('{"status": 404, "inputTokens": "many"}')).toBe("none");
  });

  test("dimensions stand in declared order; absent, null and structures are empty", () => {
    const rule = ruleOf({ dimensions: { z: "/z", a: "/a/0", b: "/b" } });
    expect(contribution(rule, '{"inputTokens": 1, "a": ["x"], "z": 1.50, "b": {"c": 1}}')).toBe("1|1.5|x|");
    expect(contribution(rule, '{"inputTokens": 1, "z": null}')).toBe("1|||");
  });

  test("long dimension text is cut to the limit and stays distinct", () => {
    const rule = ruleOf({ dimensions: { a: "/a" } });
    const dim = (text: string): string => contribution(rule, JSON.stringify({ inputTokens: 1, a: text })).slice(2);
    for (const filler of ["x", "ü", "€", "😀"]) {
      const size = Buffer.byteLength(filler);
      const fits = filler.repeat(Math.floor(DIMENSION_BYTES_MAX / size));
      expect(dim(fits)).toBe(fits);
      for (let extra = 1; extra <= 4; extra += 1) {
        const long = fits + "y".repeat(DIMENSION_BYTES_MAX - Buffer.byteLength(fits) + extra);
        expect(Buffer.byteLength(dim(long))).toBeLessThanOrEqual(DIMENSION_BYTES_MAX);
        expect(dim(long)).not.toBe(dim(`${long}y`));
        expect(dim(long).isWellFormed()).toBe(true);
      }
    }
    expect(dim("\ud800")).toBe("\ufffd");
  });
});
