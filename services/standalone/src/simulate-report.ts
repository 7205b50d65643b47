/** The report of a what-if: tables for people, CSV for everything else. Pure. */
import type { CurrencySummary, CustomerLine, LargestChange, SimulationLine, SkippedLine } from "@tallyhouse/billing";

type Summary = Extract<SimulationLine, { kind: "summary" }>;

/** Skipped periods that are listed one by one. */
const SKIPPED_SHOWN_MAX = 20;
/** Why a period has no two bills to compare. */
const REASONS: Readonly<Record<SkippedLine["reason"], string>> = {
  currency: "the plan under trial has another currency",
  interval: "the plan under trial has another interval",
  contract: "the customer's contract does not fit the plan under trial",
  custom: "the plan under trial is custom, and the customer has no contract for it",
  usage: "its usage cannot be read",
};

/** The whole report: the same for the same usage and file. */
export function summaryText(
  span: { readonly from: string; readonly to: string },
  { currencies, skippedPeriods }: Summary,
  skipped: readonly SkippedLine[],
): string {
  const head = `Periods that begin from ${span.from} to ${span.to}\n`;
  const parts = currencies.map(currencyText);
  if (currencies.length === 0) parts.push("no period of any customer begins there\n");
  if (skippedPeriods > 0) parts.push(skippedText(skippedPeriods, skipped));
  return [head, ...parts].join("\n");
}

function currencyText(summary: CurrencySummary): string {
  const { currency, customers, periods, before, after, change, more, less, same } = summary;
  const plans = summary.plans.map((each) => [
    each.plan === each.planAfter ? each.plan : `${each.plan} → ${each.planAfter}`,
    String(each.periods),
    each.before,
    each.after,
    signed(each.change),
  ]);
  return [
    `${currency.toUpperCase()}: ${customers} customers, ${periods} periods; ${more} would have paid more, ${less} less, ${same} the same\n`,
    table(
      ["plan", "periods", "before", "after", "change"],
      [...plans, ["all", String(periods), before, after, signed(change)]],
    ),
    "Distribution of customers by the change of their bill\n",
    table(
      ["change of bill", "customers", "sum of changes"],
      summary.distribution.map(({ bucket, customers: count, change: sum }) => [bucket, String(count), signed(sum)]),
    ),
    largestText("Largest increases", summary.largestIncreases),
    largestText("Largest decreases", summary.largestDecreases),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function largestText(title: string, largest: readonly LargestChange[]): string {
  if (largest.length === 0) return "";
  const rows = largest.map(({ customer, before, after, change }) => [
    printable(customer),
    before,
    after,
    signed(change),
  ]);
  return `${title}\n\n${table(["customer", "before", "after", "change"], rows)}`;
}

function skippedText(count: number, skipped: readonly SkippedLine[]): string {
  const rows = skipped
    .slice(0, SKIPPED_SHOWN_MAX)
    .map(({ customer, start, plan, planAfter, reason }) => [
      printable(customer),
      start,
      plan,
      planAfter,
      REASONS[reason],
    ]);
  const more = count > rows.length ? `… and ${count - rows.length} more\n` : "";
  return `Left out on both sides: ${count} periods\n\n${table(["customer", "period", "plan", "tried", "why"], rows)}${more}`;
}

function signed(amount: string): string {
  return amount.startsWith("-") || /^0(?:\.0+)?$/.test(amount) ? amount : `+${amount}`;
}

/** Ids are any text: nothing of them may move a terminal's cursor. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, "?");
}

/** The first column to the left, the others to the right; `why` stands last and needs no width. */
function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? "").length)));
  const isText = header.includes("why");
  const line = (cells: readonly string[]): string =>
    `  ${cells
      .map((cell, column) =>
        column === 0 || isText ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd()}\n`;
  return [header, ...rows].map(line).join("");
}

/** A leading one of these makes a spreadsheet evaluate a text cell; an apostrophe in front makes it text again. */
const FORMULA_START = /^[=+\-@\t\r]/;

function textCell(text: string): string {
  const safe = FORMULA_START.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Every customer, in the order of ids. RFC 4180, amounts exact with all digits of their currency. */
export function simulationCsv(customers: readonly CustomerLine[]): string {
  const header = ["customer", "currency", "plans", "plansAfter", "periods", "before", "after", "change"];
  const rows = customers.map(({ customer, currency, plans, plansAfter, periods, before, after, change }) => [
    textCell(customer),
    currency,
    textCell(plans.join(" ")),
    textCell(plansAfter.join(" ")),
    String(periods),
    before,
    after,
    change,
  ]);
  return [header, ...rows].map((cells) => `${cells.join(",")}\r\n`).join("");
}
