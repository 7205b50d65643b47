import { isDeleted, type EmulatorState, MODES } from "./state.ts";
import { recentEvents } from "./truth.ts";

const EVENTS_SHOWN_MAX = 100;
const OBJECTS_SHOWN_MAX = 200;

const STYLE =
  "body{font:14px/1.4 system-ui,sans-serif;margin:2rem;color:#1a1a1a}table{border-collapse:collapse;margin:0 0 2rem}" +
  "th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}" +
  "caption{text-align:left;font-weight:600;padding:.4rem 0}";

/** The page at `/`: newest customers, meters and meter events of both modes. Every value is escaped. */
export function renderPage(state: Readonly<EmulatorState>): string {
  const customers = MODES.flatMap((mode) =>
    state.modes[mode].customers.rows
      .slice(-OBJECTS_SHOWN_MAX)
      .toReversed()
      .map((row) =>
        isDeleted(row)
          ? [mode, row.id, "(deleted)", "", ""]
          : [mode, row.id, row.name, row.email, instant(row.created)],
      ),
  );
  const meters = MODES.flatMap((mode) =>
    state.modes[mode].meters.rows
      .slice(-OBJECTS_SHOWN_MAX)
      .toReversed()
      .map((row) => [mode, row.id, row.event_name, row.display_name, row.default_aggregation.formula, row.status]),
  );
  const events = MODES.flatMap((mode) =>
    recentEvents(state, mode, EVENTS_SHOWN_MAX).map((row) => [
      mode,
      row.identifier,
      row.event_name,
      row.customer,
      row.value,
      instant(row.timestamp),
      row.code ?? row.fate,
    ]),
  );
  return [
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stripe emulator</title><style>${STYLE}</style></head><body>`,
    "<h1>Stripe emulator</h1>",
    '<p><a href="/_emulator/truth">truth</a> · <a href="/_emulator/requests">requests</a></p>',
    table(`Customers (newest ${OBJECTS_SHOWN_MAX})`, ["mode", "id", "name", "email", "created"], customers),
    table(
      `Meters (newest ${OBJECTS_SHOWN_MAX})`,
      ["mode", "id", "event name", "display name", "formula", "status"],
      meters,
    ),
    table(
      `Meter events (newest ${EVENTS_SHOWN_MAX})`,
      ["mode", "identifier", "event name", "customer", "value", "timestamp", "fate"],
      events,
    ),
    "</body></html>",
  ].join("\n");
}

function table(caption: string, columns: readonly string[], rows: readonly (readonly (string | null)[])[]): string {
  const head = columns.map((column) => `<th scope="col">${escape(column)}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${escape(cell ?? "")}</td>`).join("")}</tr>`);
  return `<table><caption>${escape(caption)}</caption><thead><tr>${head}</tr></thead><tbody>${body.join("\n")}</tbody></table>`;
}

function instant(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1_000);
  // A refused event may carry any timestamp, also one that no date can show.
  return Number.isNaN(date.getTime()) ? String(unixSeconds) : date.toISOString();
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}
