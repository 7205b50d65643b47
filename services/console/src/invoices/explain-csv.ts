/** Explanations as CSV: UTF-8, RFC 4180, exact decimals, no cell that a spreadsheet would run. */
import type { StoredStatement } from "@tallyhouse/billing";
import { textCell } from "../csv.ts";
import type { LineExplanation } from "./explain.ts";

/** One row for each tier part of each line; a line without parts has one row. */
export function statementCsv({ document }: StoredStatement): string {
  const header =
    "id,line,meter,version,quantity,included,credits,billable,from,upTo,units,unit,flat,partAmount,amount,currency";
  const rows = document.lines.flatMap((line) => {
    const head = [document.id, textCell(line.key), textCell(line.meter ?? ""), String(line.meterVersion ?? "")];
    const counted = [line.quantity, line.included, line.credits, line.billable];
    const parts = line.tiers.length === 0 ? [null] : line.tiers;
    return parts.map((part) => [
      ...head,
      ...counted,
      ...(part === null
        ? ["", "", "", "", "", ""]
        : [part.from, part.upTo, part.quantity, part.unit, part.flat, part.amount]),
      line.amount,
      document.plan.currency,
    ]);
  });
  return csvOf(header.split(","), rows);
}

/** One row per window or usage event. */
export function lineCsv(explanation: LineExplanation): string {
  const head = [explanation.id, textCell(explanation.line)];
  if (explanation.kind === "windows") {
    const rows = explanation.data.map(({ start, end, quantity }) => [...head, start, end, quantity]);
    return csvOf(["id", "line", "start", "end", "quantity"], rows);
  }
  const names = Object.keys(explanation.data[0]?.dims ?? {});
  const header = ["id", "line", "source", "event", "occurredAt", "receivedAt", "bookedAt", "place"];
  const rows = explanation.data.map((event) => [
    ...head,
    textCell(event.source),
    textCell(event.id),
    event.occurredAt,
    event.receivedAt,
    event.bookedAt,
    event.place,
    ...names.map((name) => textCell(event.dims[name] ?? "")),
    event.value,
  ]);
  return csvOf([...header, ...names.map((name) => `dim.${name}`), "value"], rows);
}

function csvOf(header: readonly string[], rows: readonly (readonly string[])[]): string {
  return [header, ...rows].map((cells) => `${cells.join(",")}\r\n`).join("");
}
