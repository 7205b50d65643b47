import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson } from "./json.ts";
import { formatQuantity, ONE_QUANTITY, parseQuantity, quantityOfJson } from "./quantity.ts";

const scaled = fc.bigInt({ min: -(10n ** 29n) + 1n, max: 10n ** 29n - 1n });
const text = (value: unknown): string | null => {
  const quantity = quantityOfJson(value);
  return quantity === null ? null : formatQuantity(quantity);
};

describe("quantities as text", () => {
  test("G4 every quantity is printed and read back to the last digit", () => {
    fc.assert(
      fc.property(scaled, (value) => {
        const printed = formatQuantity(value);
        expect(parseQuantity(printed)).toBe(value);
        expect(printed).toMatch(/^-?(0|[1-9]\d*)(\.\d{0,8}[1-9])?$/);
      }),
    );
  });

  test("an exponent moves the point and changes nothing else", () => {
    fc.assert(
      fc.property(scaled, fc.integer({ min: -60, max: 60 }), (value, shift) => {
        expect(parseQuantity(`${value}e-9`)).toBe(value);
        const fraction = formatQuantity(value).split(".")[1] ?? "";
        if (fraction.length + shift > 64 || fraction.length + shift < 0) return;
        const digits = formatQuantity(value).replace(".", "");
        expect(parseQuantity(`${digits}E${-fraction.length}`)).toBe(value);
      }),
    );
  });

  test("bounds: 20 integer digits, 9 fraction digits, and one beyond", () => {
    expect(parseQuantity("99999999999999999999.999999999")).toBe(10n ** 29n - 1n);
    expect(parseQuantity("100000000000000000000")).toBeNull();
    expect(parseQuantity("-100000000000000000000")).toBeNull();
    expect(parseQuantity("1e20")).toBeNull();
    expect(parseQuantity("0.000000001")).toBe(1n);
    expect(parseQuantity("0.0000000001")).toBeNull();
    expect(parseQuantity("0.0000000010")).toBe(1n);
    expect(parseQuantity("1e-9")).toBe(1n);
    expect(parseQuantity("1e-10")).toBeNull();
    expect(parseQuantity("0e999")).toBe(0n);
    expect(parseQuantity("-0")).toBe(0n);
    expect(parseQuantity(`1${"0".repeat(63)}e-60`)).toBe(1000n * ONE_QUANTITY);
    expect(parseQuantity("1e999")).toBeNull();
    expect(parseQuantity("1e-999")).toBeNull();
  });

  test("anything else is refused", () => {
    for (const input of [
      "",
      "-",
      ".5",
      "5.",
      "+1",
      "1,5",
      " 1",
      "1 ",
      "0x10",
      "NaN",
      "Infinity",
      "1e",
      "--1",
      "1_000",
      "٣",
    ]) {
      expect(`${input} is ${String(parseQuantity(input))}`).toBe(`${input} is null`);
    }
  });
});

describe("quantities of JSON values", () => {
  test("G4 a JSON number of at most 9 fraction digits below 2^22 is exactly what was written", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -4_194_303_999_999_999n, max: 4_194_303_999_999_999n }), (value) => {
        expect(quantityOfJson(parseJson(formatQuantity(value)))).toBe(value);
      }),
      { numRuns: 3_000 },
    );
  });

  test("G4 integers below 2^53 and numbers of at most 15 digits are exact", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (value) => {
        expect(text(value)).toBe(String(value).replace(/^-0$/, "0"));
      }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 10 ** 14, max: 10 ** 15 - 1 }),
        fc.integer({ min: 1, max: 7 }),
        (digits, places) => {
          const token = `${Math.trunc(digits / 10 ** places)}.${String(digits).slice(-places)}`;
          expect(text(parseJson(token))).toBe(token.replace(/\.?0+$/, ""));
        },
      ),
    );
  });

  // The expected texts are what ClickHouse 26.7 answers to JSONExtract(…, 'Decimal(38,9)') of the same token.
  test.each([
    ["0.30000000000000004", "0.3"],
    ["0.7999999999999999", "0.799999999"],
    ["0.12345678901234567890", "0.123456789"],
    ["99.47879962487102", "99.478799624"],
    ["-1.0000000005", "-1"],
    ["0.0000000009999", "0"],
    ["-1.5e-7", "-0.00000015"],
    ["134348.48181384", "134348.48181384"],
    ["139959.46", "139959.46"],
    ["1e-400", "0"],
    ["3.00000000000000000000001", "3"],
    ["39707000.4915288", "39707000.4915288"],
  ])("%s counts as %s", (token, expected) => {
    expect(text(parseJson(token))).toBe(expected);
  });

  test("what an SQL audit would read otherwise is refused: it must be sent as text", () => {
    for (const token of ["9007199254740992", "-9007199254740992", "10000000000000000", "1e20", "8388608.000000001"]) {
      expect(`${token} is ${String(text(parseJson(token)))}`).toBe(`${token} is null`);
    }
    for (const token of ["18446744073709551617", "4194304.00000000000000001", "1e400"]) {
      expect(`${token} is ${String(text(parseJson(token)))}`).toBe(`${token} is null`);
    }
    expect(text("18446744073709551617")).toBe("18446744073709551617");
  });

  test("other kinds are no quantities", () => {
    for (const value of [null, undefined, true, {}, [], [1], "", "x", Number.NaN, Infinity, 5n]) {
      expect(quantityOfJson(value)).toBeNull();
    }
  });
});
