import { describe, expect, test } from "vitest";
import { parseMetersFile } from "./meters-file.ts";

const FILE = `schema: tallyhouse.meters/1
meters:
  - key: input_tokens
    eventType: llm.request
    aggregation: sum
    value: /inputTokens
    where: [{ path: /status, in: ["200", 206] }]
    dimensions: &by { region: /region, model: /model }
    unit: tokens
    from: 2026-11-01T00:00:00Z
  - { key: requests, eventType: llm.request, aggregation: count, dimensions: *by, from: 2000-01-01T00:00:00Z }
`;

/** `line field: rule` of every problem, or "meters". */
function read(text: string): string[] {
  const reading = parseMetersFile(text);
  return reading.kind === "meters"
    ? ["meters"]
    : reading.problems.map((problem) => `${problem.line} ${problem.field}: ${problem.rule}`);
}

test("a whole file, aliases and all", () => {
  const reading = parseMetersFile(FILE);
  expect(reading).toMatchObject({
    kind: "meters",
    rules: [
      { key: "input_tokens", from: "2026-11-01T00:00:00Z", where: [{ path: "/status", in: ["200", "206"] }] },
      { key: "requests", unit: "units", where: [] },
    ],
  });
  // The order of dimensions is the order of dims, so the file's own order must survive.
  const names = reading.kind === "meters" ? reading.rules.map((rule) => Object.keys(rule.dimensions).join()) : [];
  expect(names).toEqual(["region,model", "region,model"]);
});

test("no meters are a file", () => {
  expect(read("schema: tallyhouse.meters/1\nmeters: []\n")).toEqual(["meters"]);
});

test("every problem at once, each at its line", () => {
  expect(
    read(`schema: tallyhouse.meters/1
colour: red
meters:
  - key: Input
    eventType: llm.request
    aggregation: sum
    from: 2000-01-01T00:00:00Z
    price: 1
  - key: requests
    eventType: llm.request
    aggregation: count
    dimensions:
      model: model
    from: soon
  - key: requests
    eventType: x
    aggregation: count
    from: 2000-01-01T00:00:00Z
`),
  ).toEqual([
    "2 colour: is not a known key",
    "4 meters[0].key: must match [a-z][a-z0-9_]{0,62}",
    "4 meters[0].value: is required for every aggregation but count, which takes none",
    "8 meters[0].price: is not a known key",
    "13 meters[1].dimensions.model: must be a JSON pointer into data, such as /inputTokens",
    "14 meters[1].from: must be an RFC 3339 instant such as 2000-01-01T00:00:00Z",
    '15 meters[2].key: "requests" is declared twice; first as meters[1]',
  ]);
});

describe("files that are no meters file", () => {
  test.each([
    ["empty", "", /^1 : /],
    ["text", "hello", /^1 : /],
    ["a list", "- 1", /^1 : /],
    ["another schema", "schema: tallyhouse.meters/2\nmeters: []", /^1 schema: /],
    ["no meters", "schema: tallyhouse.meters/1", /^1 meters: /],
    ["broken YAML", "schema: x\n  meters: [", /^\d+ : /],
    ["a key twice", "schema: tallyhouse.meters/1\nschema: x\nmeters: []", /^2 : Map keys must be unique/],
    ["two documents", "schema: tallyhouse.meters/1\n---\nmeters: []", /^\d+ : /],
    ["a key without a name", "schema: tallyhouse.meters/1\nmeters: []\n: 1", /is not a known key$/],
    ["an unknown alias", "schema: tallyhouse.meters/1\nmeters: *nothing", /^\d+ : /],
  ])("%s", (_name, text, expected) => {
    expect(read(text)[0]).toMatch(expected);
  });

  test("aliases that unfold without end are refused", () => {
    const levels = Array.from({ length: 12 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(10)}]`);
    expect(read(`a0: &a0 [x]\n${levels.join("\n")}\n`)[0]).toMatch(/^1 : Excessive alias count/);
  });
});
