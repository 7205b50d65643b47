/** Local calendars: which instants make an hour, a day or a month of an IANA time zone. */
import { DAY_MS, floorTo, HOUR_MS, MINUTE_MS, WINDOW_MS } from "@tallyhouse/domain";

/** Every length of rows. */
export const USAGE_WINDOWS = ["15m", "hour", "day", "month", "total"] as const;
/** Length of an answer's rows. `total` is one row over the whole range. */
export type UsageWindow = (typeof USAGE_WINDOWS)[number];

/** A stretch of time with one offset: local time = UTC + offsetMs in `[startAt, endAt)`. */
export interface ZoneSegment {
  readonly startAt: number;
  readonly endAt: number;
  readonly offsetMs: number;
}

/** What a zone does within a range. The first segment reaches back and the last forward without end. */
export interface Zone {
  readonly name: string;
  readonly segments: readonly ZoneSegment[];
}

/** One segment without an offset. */
export const UTC: Zone = {
  name: "UTC",
  segments: [{ startAt: Number.NEGATIVE_INFINITY, endAt: Number.POSITIVE_INFINITY, offsetMs: 0 }],
};

/** A zone, or the rule that it broke. */
export type ZoneReading =
  | { readonly kind: "zone"; readonly zone: Zone }
  | { readonly kind: "refused"; readonly rule: string };

/** Offsets of a zone never change twice within this step (rules of zones change clocks at most monthly). */
const SCAN_STEP_MS = DAY_MS;

/**
 * Reads the zone's offsets over `[fromAt, toAt)` from the runtime's own zone data: one source for starts, ends and sums, so no
 * second copy of the zone rules (the database has one) can disagree with it.
 * @returns refused for an unknown name, and for offsets or changes off the 15-minute grid, which no window could follow; none
 *   exists today, only history has them.
 */
export function readZone(name: string, range: { readonly fromAt: number; readonly toAt: number }): ZoneReading {
  const offsetAt = offsetReader(name);
  if (offsetAt === null) return { kind: "refused", rule: "must be an IANA time zone such as Asia/Kolkata" };
  const offGrid: ZoneReading = {
    kind: "refused",
    rule: "has an offset in this range that is no multiple of 15 minutes",
  };
  const segments: ZoneSegment[] = [];
  let startAt = Number.NEGATIVE_INFINITY;
  let at = floorTo(range.fromAt, WINDOW_MS);
  let offsetMs = offsetAt(at);
  while (at < range.toAt) {
    if (offsetMs % WINDOW_MS !== 0) return offGrid;
    const nextAt = at + SCAN_STEP_MS;
    const nextOffsetMs = offsetAt(nextAt);
    if (nextOffsetMs !== offsetMs) {
      const changeAt = firstChangeAt({ offsetAt, lowAt: at, highAt: nextAt, offsetMs });
      if (offsetAt(changeAt - 1) !== offsetMs) return offGrid;
      segments.push({ startAt, endAt: changeAt, offsetMs });
      startAt = changeAt;
    }
    at = nextAt;
    offsetMs = nextOffsetMs;
  }
  segments.push({ startAt, endAt: Number.POSITIVE_INFINITY, offsetMs });
  return { kind: "zone", zone: { name, segments } };
}

/** The first 15-minute step in `(lowAt, highAt]` whose offset is no longer `offsetMs`. */
function firstChangeAt(input: {
  offsetAt: (at: number) => number;
  lowAt: number;
  highAt: number;
  offsetMs: number;
}): number {
  let { lowAt, highAt } = input;
  while (highAt - lowAt > WINDOW_MS) {
    const middleAt = floorTo((lowAt + highAt) / 2, WINDOW_MS);
    if (input.offsetAt(middleAt) === input.offsetMs) lowAt = middleAt;
    else highAt = middleAt;
  }
  return highAt;
}

function offsetReader(name: string): ((at: number) => number) | null {
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: name,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
  return (at) => {
    const whole = floorTo(at, 1_000);
    const part: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(whole)) part[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
    return Date.UTC(year, month - 1, day, hour, minute, second) - whole;
  };
}

/** The whole bucket `[startAt, endAt)` of the zone that holds an instant of the zone's range. */
export function bucketOf(
  zone: Zone,
  window: Exclude<UsageWindow, "total">,
  at: number,
): { startAt: number; endAt: number } {
  const segment = segmentOf(zone, at);
  const localAt = at + segment.offsetMs;
  switch (window) {
    case "15m": {
      const startAt = floorTo(at, WINDOW_MS);
      return { startAt, endAt: startAt + WINDOW_MS };
    }
    case "hour": {
      // A changed clock ends the hour: an hour that the clock shows twice is two rows, half an hour set forward is a short one.
      const startAt = floorTo(localAt, HOUR_MS) - segment.offsetMs;
      return { startAt: Math.max(startAt, segment.startAt), endAt: Math.min(startAt + HOUR_MS, segment.endAt) };
    }
    case "day": {
      const localDayAt = floorTo(localAt, DAY_MS);
      return { startAt: instantOfLocal(zone, localDayAt), endAt: instantOfLocal(zone, localDayAt + DAY_MS) };
    }
    case "month": {
      const local = new Date(localAt);
      const [year, month] = [local.getUTCFullYear(), local.getUTCMonth()];
      return {
        startAt: instantOfLocal(zone, Date.UTC(year, month, 1)),
        endAt: instantOfLocal(zone, Date.UTC(year, month + 1, 1)),
      };
    }
  }
}

/** The first instant at which the local clock shows this or more: 01:00 where midnight is skipped. */
function instantOfLocal(zone: Zone, localAt: number): number {
  for (const { startAt, endAt, offsetMs } of zone.segments) {
    const at = Math.max(startAt, localAt - offsetMs);
    if (at < endAt) return at;
  }
  return Number.POSITIVE_INFINITY;
}

function segmentOf(zone: Zone, at: number): ZoneSegment {
  return zone.segments.find(({ endAt }) => at < endAt) ?? { startAt: at, endAt: at, offsetMs: 0 };
}

/** RFC 3339 with the zone's offset: `2026-11-20T00:00:00+05:30`; `Z` where the offset is zero. */
export function formatLocal(zone: Zone, at: number): string {
  const { offsetMs } = segmentOf(zone, at);
  const text = new Date(at + offsetMs).toISOString().replace(".000Z", "").replace("Z", "");
  if (offsetMs === 0) return `${text}Z`;
  const minutes = Math.abs(offsetMs) / MINUTE_MS;
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${text}${offsetMs < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}
