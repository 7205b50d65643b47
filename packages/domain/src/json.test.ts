import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvariantError } from "./assert.ts";
import { canonicalJson, compilePointer, isRawNumber, parseJson, pointerOf, textOfJson } from "./json.ts";

/** JSON number tokens of every form, many of them beyond a double. */
const numberToken = fc
  .tuple(
    fc.constantFrom("", "-"),
    fc.stringMatching(/^(0|[1-9][0-9]{0,24})$/),
    fc.option(fc.stringMatching(/^[0-9]{1,24}$/), { nil: null }),
    fc.option(fc.tuple(fc.constantFrom("e", "E", "e+", "e-", "E-"), fc.integer({ min: 0, max: 380 })), { nil: null }),
  )
  .map(
    ([sign, integer, fraction, exponent]) =>
      sign + integer + (fraction === null ? "" : `.${fraction}`) + (exponent === null ? "" : exponent.join("")),
  );

/** The exact value of a token as a fraction of bigints. */
function valueOf(token: string): readonly [bigint, bigint] {
  const [mantissa = "", exponent = "0"] = token.toLowerCase().split("e");
  const [integer = "", fraction = ""] = mantissa.split(".");
  const power = Number(exponent) - fraction.length;
  const digits = BigInt(integer + fraction);
  return power >= 0 ? [digits * 10n ** BigInt(power), 1n] : [digits, 10n ** BigInt(-power)];
}

function isSameNumber(a: string, b: string): boolean {
  const [p, q] = valueOf(a);
  const [r, s] = valueOf(b);
  return p * s === r * q;
}

describe("parseJson", () => {
  test("G4 every number token keeps its value through parse and print", () => {
    fc.assert(
      fc.property(numberToken, (token) => {
        const text = `{"v": [${token}, "1234567890123456789"]}`;
        const printed = JSON.stringify(parseJson(text));
        const back = /\[(.*?),"1234567890123456789"\]/.exec(printed)?.[1] ?? "";
        expect(isSameNumber(token, back)).toBe(true);
      }),
      { numRuns: 5_000 },
    );
  });

  test("is JSON.parse for values that a double holds", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(parseJson(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  test.each([
    "9007199254740993",
    "0.1234567890123456789",
    "1e400",
    "-1e400",
    "1e-400",
    "1.2345e-320",
    "18446744073709551617",
  ])("%s is kept as its own text", (token) => {
    for (const text of [token, `[${token}]`, `{"v":${token}}`, `{"v":\n\t ${token} }`]) {
      expect(JSON.stringify(parseJson(text))).toBe(text.replaceAll(/\s/g, ""));
    }
    expect(isRawNumber(parseJson(token))).toBe(true);
  });

  test.each([
    "0.30000000000000004",
    "9007199254740991",
    "10000000000000000",
    "1.000000000000000000",
    "5e-324",
    "1e21",
    "-0",
  ])("%s is a plain number", (token) => {
    expect(parseJson(token)).toBe(Number(token));
  });

  test("digits inside strings stay strings", () => {
    const text = String.raw`{"id":"1234567890123456789","note":"a:12345678901234567890, \"v\": 1e999"}`;
    expect(parseJson(text)).toEqual(JSON.parse(text));
  });

  test("depth costs no stack: plain texts parse at any depth, with a raw number 500 levels", () => {
    const nested = (levels: number, inner: string): string => "[".repeat(levels) + inner + "]".repeat(levels);
    expect(() => parseJson(nested(100_000, "1"))).not.toThrow();
    expect(JSON.stringify(parseJson(nested(500, "9007199254740993")))).toBe(nested(500, "9007199254740993"));
    expect(() => parseJson(nested(501, "9007199254740993"))).toThrow(SyntaxError);
    expect(() => parseJson(nested(100_000, "9007199254740993"))).toThrow(SyntaxError);
  });

  test("a very long number is read in linear time", () => {
    const token = `1${"0".repeat(200_000)}1${"0".repeat(200_000)}`;
    expect(isRawNumber(parseJson(token))).toBe(true);
    expect(canonicalJson(parseJson(token)).length).toBeLessThan(200_020);
  });

  test("what is no JSON throws SyntaxError", () => {
    for (const text of ["", "{", "nul", "01", "1.", "[1,]", "{'a':1}", "9007199254740993 x", "NaN"]) {
      expect(() => parseJson(text)).toThrow(SyntaxError);
    }
  });
});

describe("canonicalJson", () => {
  test("does not depend on key order, and reads back as the same value", () => {
    const shuffled = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(shuffled);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([name, child]) => [name, shuffled(child)]),
      );
    };
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const plain: unknown = JSON.parse(JSON.stringify(value));
        expect(canonicalJson(shuffled(plain))).toBe(canonicalJson(plain));
        expect(JSON.parse(canonicalJson(plain))).toEqual(plain);
      }),
    );
  });

  test("two tokens have one text exactly when they are one number", () => {
    const pair = fc.oneof(
      fc.tuple(numberToken, numberToken),
      numberToken.map((token) => [token, /[eE]/.test(token) ? token.replace(/[eE]\+?/, "E") : `${token}e0`] as const),
      numberToken.map((token) => [token, /[.eE]/.test(token) ? token : `${token}.000`] as const),
    );
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const isOneText = canonicalJson(parseJson(a)) === canonicalJson(parseJson(b));
        expect(isOneText).toBe(isSameNumber(a, b));
      }),
      { numRuns: 3_000 },
    );
  });

  test("leaves out what JSON.stringify leaves out", () => {
    expect(canonicalJson({ b: undefined, a: [undefined, null] })).toBe('{"a":[null,null]}');
  });
});

describe("textOfJson", () => {
  test("numbers are plain decimals, equal for equal numbers", () => {
    const texts: readonly (readonly [string, string])[] = [
      ["1e21", "1000000000000000000000"],
      ["1e-7", "0.0000001"],
      ["-1.5e-7", "-0.00000015"],
      ["123.4500", "123.45"],
      ["-0", "0"],
      ["0e5", "0"],
      ["1.234567890123456789e19", "12345678901234567890"],
      ["12345678901234567890", "12345678901234567890"],
      ["0.12345678901234567890", "0.1234567890123456789"],
    ];
    expect(texts.map(([token]) => textOfJson(parseJson(token)))).toEqual(texts.map(([, text]) => text));
  });

  test("the text of a number is that number and has no exponent", () => {
    fc.assert(
      fc.property(numberToken, (token) => {
        const text = textOfJson(parseJson(token)) ?? "";
        expect(text).toMatch(/^-?(0|[1-9]\d*)(\.\d*[1-9])?$/);
        expect(isSameNumber(text, token)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  test("an absurd exponent is not written out", () => {
    expect(textOfJson(parseJson("1e1000000000"))).toBe("1e1000000000");
    expect(textOfJson(parseJson("-1200e-1000000000"))).toBe("-12e-999999998");
  });

  test("the other kinds", () => {
    expect([true, false, "x", null, undefined, {}, []].map(textOfJson)).toEqual([
      "true",
      "false",
      "x",
      null,
      null,
      null,
      null,
    ]);
  });
});

describe("JSON pointers", () => {
  test("the examples of RFC 6901", () => {
    const root = { foo: ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, " ": 7, "~1": 9 };
    const read = (pointer: string): unknown => compilePointer(pointer)(root);
    expect(read("")).toBe(root);
    expect(read("/foo/0")).toBe("bar");
    expect([read("/"), read("/a~1b"), read("/c%d"), read("/m~0n"), read("/ "), read("/~01")]).toEqual([
      0, 1, 2, 8, 7, 9,
    ]);
  });

  test("reads own properties only, and array steps only as plain indices", () => {
    const root: unknown = { list: [1, 2] };
    for (const pointer of [
      "/constructor",
      "/__proto__",
      "/list/length",
      "/list/01",
      "/list/-",
      "/list/2",
      "/list/0/x",
    ]) {
      expect(`${pointer}: ${String(compilePointer(pointer)(root))}`).toBe(`${pointer}: undefined`);
    }
    expect(compilePointer("/a")(null)).toBeUndefined();
    expect(() => compilePointer("inputTokens")).toThrow(InvariantError);
  });

  test("pointerOf names the place that compilePointer reads", () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { maxLength: 5 }), (path) => {
        const root = path.reduceRight<unknown>((inner, step) => ({ ["k" + step]: inner }), "found");
        expect(compilePointer(pointerOf(path.map((step) => "k" + step)))(root)).toBe("found");
      }),
    );
  });
});
