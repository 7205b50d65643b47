/** Usage as CSV: UTF-8, RFC 4180 quoting, exact decimals, no cell that a spreadsheet would run as a formula. */
import type { UsageAnswer } from "./usage.ts";

/** A leading one of these makes a spreadsheet evaluate a text cell; an apostrophe in front makes it text again. */
const FORMULA_START = /^[=+\-@\t\r]/;

/** A text cell: neutralised, quoted where needed. @see https://www.rfc-editor.org/rfc/rfc4180 (read 2026-11) */
export function textCell(text: string): string {
  const safe = FORMULA_START.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** One line per row, every line complete in itself. Quantities stay numbers, negative ones too. */
export function usageCsv(answer: UsageAnswer, groupBy: readonly string[]): string {
  const header = ["customer", "meter", "version", "unit", "start", "end", ...groupBy.map((name) => `group.${name}`)];
  const lines = [[...header, "quantity", "asOf"]];
  for (const { start, end, group, quantity } of answer.data) {
    lines.push([
      textCell(answer.customer ?? ""),
      textCell(answer.meter),
      String(answer.version),
      textCell(answer.unit),
      start,
      end,
      ...groupBy.map((name) => textCell(group[name] ?? "")),
      quantity,
      answer.asOf ?? "",
    ]);
  }
  return lines.map((cells) => `${cells.join(",")}\r\n`).join("");
}
