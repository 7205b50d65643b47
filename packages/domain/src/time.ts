/** Instants are epoch milliseconds (UTC); finer digits are cut, never rounded. Spans are half-open. */

/** The usage window of every rollup: every IANA offset in use is a multiple of it, so local days are whole windows. */
export const WINDOW_MS = 900_000;
/** An hour of 60 minutes. */
export const HOUR_MS = 3_600_000;
/** A UTC day: no leap seconds in epoch time. Local days may be shorter or longer. */
export const DAY_MS = 86_400_000;
/** A minute of 60 seconds. */
export const MINUTE_MS = 60_000;

/** 0100-01-01T00:00:00Z (Date.UTC reads years below 100 as 1900 and later) to 9999-12-31T23:59:59.999Z. */
const INSTANT_MIN = Date.UTC(100, 0, 1);
const INSTANT_MAX = Date.UTC(10_000, 0, 1) - 1;

const RFC3339 = /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})$/;

/**
 * Parses an RFC 3339 instant with any number of fraction digits; digits finer than a millisecond are cut.
 * A leap second (`:60`) is refused: it has no epoch milliseconds. So are years before 100 and instants whose UTC year is not
 * four digits: every result can be written by {@link formatInstant} and read again.
 * @returns epoch milliseconds, or null when the text is no RFC 3339 instant or names no real date.
 * @see https://www.rfc-editor.org/rfc/rfc3339 (read 2026-11)
 */
export function parseInstant(text: string): number | null {
  return parsePlainInstant(text) ?? parseAnyInstant(text);
}

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * `2026-11-20T10:00:00Z` and `2026-11-20T10:00:00.123Z` of the years 1970 to 2199, as all but a few senders write it, at a fifth of the
 * general reader's cost. Null for everything else, valid or not.
 */
function parsePlainInstant(text: string): number | null {
  const hasMillis = text.length === 24;
  if ((!hasMillis && text.length !== 20) || text.charCodeAt(text.length - 1) !== 90) return null;
  if (text.charCodeAt(4) !== 45 || text.charCodeAt(7) !== 45 || text.charCodeAt(10) !== 84) return null;
  if (text.charCodeAt(13) !== 58 || text.charCodeAt(16) !== 58 || (hasMillis && text.charCodeAt(19) !== 46))
    return null;
  const year = 100 * digitsAt(text, 0, 2) + digitsAt(text, 2, 2);
  const month = digitsAt(text, 5, 2);
  const day = digitsAt(text, 8, 2);
  const hour = digitsAt(text, 11, 2);
  const minute = digitsAt(text, 14, 2);
  const second = digitsAt(text, 17, 2);
  const millis = hasMillis ? digitsAt(text, 20, 3) : 0;
  // NaN, for what is no digit, fails every one of these.
  if (!(year >= 1970 && year < 2200 && hour < 24 && minute < 60 && second < 60 && millis >= 0)) return null;
  // The 29th of February is left to the general reader.
  if (!(day >= 1 && day <= (MONTH_DAYS[month - 1] ?? 0))) return null;
  return Date.UTC(year, month - 1, day, hour, minute, second, millis);
}

/** NaN unless all of them are decimal digits. */
function digitsAt(text: string, at: number, count: number): number {
  let value = 0;
  for (let i = at; i < at + count; i += 1) {
    const digit = text.charCodeAt(i) - 48;
    value = digit >= 0 && digit <= 9 ? value * 10 + digit : Number.NaN;
  }
  return value;
}

function parseAnyInstant(text: string): number | null {
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
  const at = base - offsetMinutes * MINUTE_MS + Number(fraction.slice(0, 3).padEnd(3, "0"));
  return at < INSTANT_MIN || at > INSTANT_MAX ? null : at;
}

function parseOffsetMinutes(zone: string): number | null {
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(4, 6));
  if (hours > 23 || minutes > 59) return null;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}

/** `2026-11-20T10:00:00Z`, with milliseconds only when there are any. Four-digit years only: what {@link parseInstant} returns. */
export function formatInstant(at: number): string {
  const day = Math.floor(at / DAY_MS);
  if (day !== lastDay.day) lastDay = { day, text: new Date(day * DAY_MS).toISOString().slice(0, -13) };
  const millis = at - day * DAY_MS;
  const seconds = Math.floor(millis / 1_000);
  const minutes = Math.floor(seconds / 60);
  const rest = millis - seconds * 1_000;
  const fraction = rest === 0 ? "" : `.${String(rest).padStart(3, "0")}`;
  return `${lastDay.text}${TWO_DIGITS[Math.floor(minutes / 60)]}:${TWO_DIGITS[minutes % 60]}:${TWO_DIGITS[seconds % 60]}${fraction}Z`;
}

const TWO_DIGITS = Array.from({ length: 60 }, (_, value) => String(value).padStart(2, "0"));
/** The day that was written last, with its `T`: most instants that are written one after the other are of one day. */
let lastDay = { day: Number.NaN, text: "" };

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
