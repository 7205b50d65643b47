import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { add, formatDecimal, parseDecimal, significantDigits, toJsonNumber } from "./decimal.ts";

function parsed(text: string) {
  const value = parseDecimal(text);
  if (value === undefined) throw new Error(`${text} is no decimal`);
  return value;
}

describe("decimals", () => {
  it.each(["", " 1", "+1", "1e3", "01", "1.", ".5", "1,5", "0x1", "NaN", "-", "1.5.2", "١"])("refuse %j", (text) => {
    expect(parseDecimal(text)).toBeUndefined();
  });

  it.each([
    ["0", "0"],
    ["-0", "0"],
    ["-0.00", "0"],
    ["12.50", "12.5"],
    ["-12.05", "-12.05"],
    ["1000000000000000000000", "1000000000000000000000"],
    ["0.000000000000000000001", "0.000000000000000000001"],
  ])("read %s as %s", (text, shown) => {
    expect(formatDecimal(parsed(text))).toBe(shown);
  });

  it("add what floats cannot", () => {
    expect(formatDecimal(add(parsed("0.1"), parsed("0.2")))).toBe("0.3");
    expect(formatDecimal(add(parsed("999999999999999"), parsed("0.000000000000001")))).toBe(
      "999999999999999.000000000000001",
    );
    expect(toJsonNumber(add(parsed("0.1"), parsed("0.2")))).toBe(0.3);
  });

  it.each([
    ["0", 0],
    ["0.012", 2],
    ["0.0120", 3],
    ["-100", 3],
    ["10.01", 4],
  ])("count the significant digits of %s: %i", (text, digits) => {
    expect(significantDigits(text)).toBe(digits);
  });

  it("sum like integers of a common scale, in any order", () => {
    const part = fc.record({
      units: fc.bigInt({ min: -(10n ** 15n), max: 10n ** 15n }),
      scale: fc.integer({ min: 0, max: 12 }),
    });
    fc.assert(
      fc.property(fc.array(part, { maxLength: 50 }), (parts) => {
        const scaled = parts.reduce((sum, { units, scale }) => sum + units * 10n ** BigInt(12 - scale), 0n);
        const sum = parts.reduce(add, { units: 0n, scale: 0 });
        const reversed = parts.toReversed().reduce(add, { units: 0n, scale: 0 });
        expect(formatDecimal(sum)).toBe(formatDecimal({ units: scaled, scale: 12 }));
        expect(formatDecimal(reversed)).toBe(formatDecimal(sum));
        expect(formatDecimal(parsed(formatDecimal(sum)))).toBe(formatDecimal(sum));
      }),
    );
  });
});
