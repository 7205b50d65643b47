/** Instants are epoch milliseconds (UTC); finer digits are cut, never rounded. Spans are half-open. */

/** The usage window of every rollup: every IANA offset in use is a multiple of it, so local days are whole windows. */
export const WINDOW_MS = 900_000;
/** An hour of 60 minutes. */
export const HOUR_MS = 3_600_000;
/** A UTC day: no leap seconds in epoch time. Local days may be shorter or longer. */
export const DAY_MS = 86_400_000;
/** A minute of 60 seconds. */
export const MINUTE_MS = 60_000;

const RFC3339 = /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,18}))?([Zz]|[+-]\d{2}:\d{2})$/;

/**
 * Parses an RFC 3339 instant with any number of fraction digits; digits finer than a millisecond are cut.
 * A leap second (`:60`) is refused: it has no epoch milliseconds.
 * @returns epoch milliseconds, or null when the text is no RFC 3339 instant or names no real date.
 * @see https://www.rfc-editor.org/rfc/rfc3339 (read 2026-11)
 */
export function parseInstant(text: string): number | null {
  const match = RFC3339.exec(text);
  if (match === null) return null;
  const [, year, month, day, hour, minute, second, fraction = "", zone = "Z"] = match;
  const base = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  const check = new Date(base);
  const real =
    check.getUTCFullYear() === Number(year) &&
    check.getUTCMonth() === Number(month) - 1 &&
    check.getUTCDate() === Number(day) &&
    Number(hour) < 24 &&
    Number(minute) < 60 &&
    Number(second) < 60;
  if (!real) return null;
  const offsetMinutes = zone.toUpperCase() === "Z" ? 0 : parseOffsetMinutes(zone);
  if (offsetMinutes === null) return null;
  // Cutting must be toward the past for every sign of the epoch; the fraction is always forward of the whole second.
  return base - offsetMinutes * MINUTE_MS + Number(fraction.slice(0, 3).padEnd(3, "0"));
}

function parseOffsetMinutes(zone: string): number | null {
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(4, 6));
  if (hours > 23 || minutes > 59) return null;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}

/** `2026-11-20T10:00:00Z`, with milliseconds only when there are any. */
export function formatInstant(at: number): string {
  return new Date(at).toISOString().replace(".000Z", "Z");
}

/** Start of the usage window holding the instant; negative instants included. */
export function windowStartOf(at: number): number {
  return floorTo(at, WINDOW_MS);
}

/** The largest multiple of `stepMs` that is not after the instant. */
export function floorTo(at: number, stepMs: number): number {
  return Math.floor(at / stepMs) * stepMs;
}

/** The smallest multiple of `stepMs` that is not before the instant. */
export function ceilTo(at: number, stepMs: number): number {
  return Math.ceil(at / stepMs) * stepMs;
}

/** First instant of the UTC calendar month holding `at`, and of the next one: the first form's billing period. */
export function utcMonthOf(at: number): { readonly startAt: number; readonly endAt: number } {
  const date = new Date(at);
  return {
    startAt: Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1),
    endAt: Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1),
  };
}
