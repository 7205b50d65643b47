import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { locateJsonFault } from "./json-fault.ts";

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe("locateJsonFault", () => {
  test.each([
    ["", 0],
    ["  ", 2],
    ["{", 1],
    ['{"a"}', 4],
    ['{"a":1,}', 7],
    ["[1,]", 3],
    ["[1 2]", 3],
    ["[1}", 2],
    ["{]", 1],
    ["{1:2}", 1],
    ["01", 0],
    ["1.", 0],
    ["-", 0],
    ["+1", 0],
    ["nul", 0],
    ["nulll", 0],
    ["1 x", 2],
    ["]", 0],
    ["[]]", 2],
    ['"a', 0],
    ['["\n"]', 1],
    ['["\\x"]', 1],
    ["{'a':1}", 1],
    ["[NaN]", 1],
    ["\u00a0[]", 0],
  ])("%j at %i", (text, offset) => {
    expect(locateJsonFault(text)?.offset).toBe(offset);
  });

  test("counts lines and columns from 1", () => {
    expect(locateJsonFault('[\r\n  1,\n  "é" x\n]')).toEqual({ offset: 14, line: 3, column: 7 });
  });

  test("finds nothing in JSON and something in everything else, and what stands before it can be completed", () => {
    const piece = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"',
      '"a"',
      "1",
      "-",
      ".",
      "e5",
      "true",
      "x",
      " ",
      "\n",
      "\\",
      "\\n",
    );
    const text = fc.oneof(
      fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join("")),
      fc.tuple(fc.json(), fc.nat(), fc.string({ maxLength: 2 }), fc.nat(2)).map(([json, at, inserted, removed]) => {
        const place = at % (json.length + 1);
        return json.slice(0, place) + inserted + json.slice(place + removed);
      }),
      fc.json(),
    );
    fc.assert(
      fc.property(text, (input) => {
        const fault = locateJsonFault(input);
        expect(fault === null).toBe(isJson(input));
        // The text before a fault has its only fault at its own end: nothing earlier was wrong.
        const before = input.slice(0, fault?.offset ?? input.length);
        const earlier = locateJsonFault(before);
        expect(earlier === null || earlier.offset === before.length || fault === null).toBe(true);
      }),
      { numRuns: 5_000 },
    );
  });

  test("a megabyte of anything is no matter", () => {
    expect(locateJsonFault("[".repeat(1_000_000))?.offset).toBe(1_000_000);
    expect(locateJsonFault(`"${"a".repeat(1_000_000)}`)?.offset).toBe(0);
    expect(locateJsonFault(`"${String.raw`\n`.repeat(500_000)}`)?.offset).toBe(0);
    expect(locateJsonFault(`${"1".repeat(1_000_000)}x`)?.offset).toBe(0);
  });
});
