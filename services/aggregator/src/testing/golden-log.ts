/** One log for ever: every kind of record, from arithmetic alone. Whoever folds it, in whatever steps, must store the same rows. */
import { formatInstant, type LogRecord, type MeterVersion } from "@tallyhouse/domain";
import { MemoryLog, meterVersion } from "@tallyhouse/testkit";
import { activation, controlRecord, HOUR_MS, ManualClock, STREAM, usageRecord } from "./scenario.ts";

/** Booked in the future, because ClickHouse drops rows beyond their time to live when they are inserted. */
const START = Date.UTC(2090, 0, 2, 12);
const STEP_MS = 7_321;
const RECORDS = 2_400;
const IDS = 900;
const LATE_METER_AT = 1_500;
const END_AT = 1_800;

const METERS: readonly MeterVersion[] = [
  meterVersion({ meter: "tokens", rule: { value: "/tokens", dimensions: { model: "/model", tier: "/tier" } } }),
  meterVersion({ meter: "calls", rule: { aggregation: "count", value: undefined } }),
  meterVersion({ meter: "largest", rule: { aggregation: "max", value: "/tokens" } }),
  meterVersion({ meter: "smallest", rule: { aggregation: "min", value: "/tokens" } }),
  meterVersion({ meter: "newest", rule: { aggregation: "latest", value: "/tokens" } }),
  meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } }),
];
/** Activated in the middle, counts what came before too. */
const LATE_METER = meterVersion({
  meter: "small_tokens",
  rule: { value: "/tokens", where: [{ path: "/model", equals: "small" }], dimensions: { user: "/user" } },
});

/** The clock stands behind the last record. */
export function goldenLog(): { log: MemoryLog; clock: ManualClock } {
  const clock = new ManualClock();
  clock.at = START + RECORDS * STEP_MS;
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock, isManual: true });
  const partitions = Array.from({ length: STREAM.partitionCount }, (_, partition) => partition);
  const toAll = (at: number, recordFor: (partition: number) => LogRecord): void => {
    for (const partition of partitions) log.appendAt(at, recordFor(partition));
  };
  toAll(START, (partition) => controlRecord({ kind: "tick" }, partition));
  for (const meter of METERS) toAll(START, (partition) => controlRecord(activation(meter), partition));
  for (let n = 0; n < RECORDS; n += 1) {
    // Now and then the log's clock steps back.
    const at = START + n * STEP_MS - (n % 97 === 0 ? 60_000 : 0);
    if (n === LATE_METER_AT) toAll(at, (partition) => controlRecord(activation(LATE_METER), partition));
    if (n === END_AT) toAll(at, (partition) => controlRecord(endOf(METERS[3], START + 2_400 * STEP_MS), partition));
    const target = n % 41 === 40 ? counted(log, n) : null;
    if (target !== null) log.appendAt(at, correction(n, target));
    else log.appendAt(at, usage(n));
  }
  return { log, clock };
}

function endOf(meter: MeterVersion | undefined, untilAt: number) {
  const { mode, meter: key, version } = meter ?? LATE_METER;
  return { kind: "meter.end", mode, meter: key, version, until: formatInstant(untilAt) } as const;
}

/** Repeats identities, with equal payload and with another; late, far ahead, unreadable. None misplaced: a fold would add to the log. */
function usage(n: number): LogRecord {
  const k = n % 7 === 0 ? (n * 31) % IDS : n;
  const seed = n % 77 === 0 ? n : k;
  const event = {
    id: `golden-${k}`,
    customer: `cus_${k % 13}`,
    mode: k % 17 === 0 ? ("test" as const) : ("live" as const),
    occurredAt:
      START + k * STEP_MS - ((k * 7_919) % 5_000_000) * (k % 29 === 0 ? 700 : 1) + (k % 113 === 0 ? HOUR_MS : 0),
    data: {
      tokens: k % 59 === 0 ? "many" : `${(seed * 37) % 4_001}.${String((seed * 101) % 1_000_000_000).padStart(9, "0")}`,
      model: ["small", "large", "ünïcode"][k % 3],
      tier: k % 5 === 0 ? null : k % 4,
      user: `u${(k * 13) % 50}`,
    },
  };
  return usageRecord(event);
}

/** A record some way back that holds a usage event, and where it stands. */
function counted(log: MemoryLog, n: number): { partition: number; offset: number; text: string } | null {
  const partition = n % STREAM.partitionCount;
  const entries = log.entries(partition);
  const entry = entries[entries.length - 1 - ((n * 17) % Math.max(1, entries.length - 20))];
  if (entry?.value == null || Object.keys(entry.headers).length > 0) return null;
  return { partition, offset: entry.offset, text: String(entry.value) };
}

function correction(n: number, { partition, offset, text }: { partition: number; offset: number; text: string }) {
  if (n % 3 !== 0) return controlRecord({ kind: "void", offset, event: text }, partition);
  const replacement = text.replace(/"id":"([^"]*)"/, `"id":"$1~r${n}"`).replace(/"tokens":"[^"]*"/, '"tokens":"7.5"');
  return controlRecord({ kind: "replace", offset, event: text, replacement }, partition);
}
