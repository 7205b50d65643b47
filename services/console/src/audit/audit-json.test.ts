/** What the audit reads out of JSON in SQL, against what a meter reads out of the same text. */
import { formatQuantity, parseJson, quantityOfJson, textOfJson } from "@tallyhouse/domain";
import { Dice } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTestConsole, type TestConsole } from "../test-support.ts";
import { literal, rawSql, READERS } from "./audit-json.ts";

let console: TestConsole;
beforeAll(async () => {
  console = await openTestConsole(0);
});
afterAll(() => console.close());

interface Read {
  readonly text: string | null;
  readonly quantity: string | null;
}

/** What SQL reads at a place of each payload. Two places of one payload share its rewriting. */
async function readBySql(payloads: readonly string[], pointer: string): Promise<Read[]> {
  const rows = await console.analytics.select<Read & { n: string }>(`
    WITH ${READERS}
    SELECT n, textOf(raw) AS text, toString(quantityOf(raw)) AS quantity
    FROM (
      SELECT n, ${rawSql("json", pointer)} AS raw
      FROM (SELECT n, exact(payload) AS json
        FROM (SELECT [${payloads.map(literal).join(", ")}] AS all, arrayJoin(arrayEnumerate(all)) AS n, all[n] AS payload)))
    ORDER BY n`);
  return rows.map(({ text, quantity }) => ({ text, quantity }));
}

/** The same by the rules of docs/meters.md. Half a surrogate pair cannot be stored: it becomes U+FFFD. */
function readByMeter(scalar: string): Read {
  const value = parseJson(scalar);
  const text = textOfJson(value);
  const quantity = quantityOfJson(value);
  return {
    text: text === null ? null : Buffer.from(text).toString("utf8"),
    quantity: quantity === null ? null : formatQuantity(quantity),
  };
}

/** Behind a backslash in a text. */
const ESCAPED = [
  "n",
  "t",
  "/",
  '"',
  "\\",
  "u00e9",
  "u00E9",
  "u0000",
  "ud83d",
  "uDE00",
  "ud83d\\ude00",
  "uD83D\\uDE00",
  "ud83d\\ud83d\\ude00",
];
/** Numbers, and texts and lists that look like them. */
const NUMBERS =
  `null true false 0 -0 -0.0 0.0 1.0 1.50 -0.000000001 0.0000000001 1e0 1E+2 1e-7 4194303.9999999999 4194304.1
  4194304.123456789 99999999.123456 9007199254740991 9007199254740993 123456789012345 1234567890123456 18446744073709551617 1e21
  1e400 -1e-400 1e999999 0e5 {} [] {"b":1} [1] {"b":1e5} "" "null" "true" "{" "[1]" "1.0" "-0" "1e3" "1e-9" "1e-10"
  "99999999999999999999.999999999" "100000000000000000000" "00012.50" "12.3400000000000" "+1" "1." ".5" "a/b" "é" "😀"
  "1,-1234567890123456" ":1e5"`.split(/\s+/);
const SCALARS: readonly string[] = [
  ...NUMBERS,
  '" 1"',
  `"${"0".repeat(40)}1"`,
  `"${"1".repeat(65)}"`,
  `"${"\\".repeat(2)}ud83d"`,
  ...ESCAPED.map((escaped) => `"x\\${escaped}y"`),
];

/** A number in any way JSON may write it. */
function anyNumber(dice: Dice): string {
  const digits = (most: number): string =>
    Array.from({ length: 1 + dice.below(most) }, () => String(dice.below(10))).join("");
  const integer = dice.below(3) === 0 ? "0" : String(1 + dice.below(9)) + (dice.below(2) === 0 ? "" : digits(19));
  const fraction = dice.below(2) === 0 ? "" : `.${dice.below(3) === 0 ? "000000" : ""}${digits(12)}`;
  const exponent =
    dice.below(4) > 0
      ? ""
      : `${dice.below(2) === 0 ? "e" : "E"}${["", "-", "+"][dice.below(3)] ?? ""}${dice.below(25)}`;
  return `${dice.below(4) === 0 ? "-" : ""}${integer}${fraction}${exponent}`;
}

test("G3 SQL reads every scalar as a meter does, in a payload of its own and beside others", async () => {
  const dice = new Dice(20_261_121);
  const scalars = [
    ...SCALARS,
    ...Array.from({ length: 1_500 }, () => anyNumber(dice)),
    ...Array.from({ length: 500 }, () => `"${anyNumber(dice)}"`),
  ];
  const expected = scalars.map(readByMeter);
  const named = scalars.map((scalar) => `{"a":${scalar},"n":7}`);
  expect(await readBySql(named, "/a")).toEqual(expected);
  // An exponent and half a pair elsewhere, blanks, and a list: the payload is rewritten, and the value is not touched by it.
  const besides = scalars.map((scalar) => `{"odd": 1e5, "half" : "\\ud800", "a" : [ 3, ${scalar} ]}`);
  expect(await readBySql(besides, "/a/1")).toEqual(expected);
});
