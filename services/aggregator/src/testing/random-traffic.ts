/** Logs of any order of usage, corrections and meters, small enough that their identities, keys and targets meet. */
import { type ControlFact, formatInstant, type LogRecord, type MeterVersion } from "@tallyhouse/domain";
import { MemoryLog, meterVersion } from "@tallyhouse/testkit";
import fc from "fast-check";
import { activation, controlRecord, idsOf, NOON, STREAM, usageRecord } from "./scenario.ts";
import { clockAfterTraffic } from "./traffic.ts";

const MINUTE_MS = 60_000;
const IDS = 10;
const VALUES = ["1", "-2.5", "0.000000001", "many", "ann", "bob"] as const;
const METERS: readonly MeterVersion[] = (["sum", "unique_count", "max", "latest"] as const).map((aggregation) =>
  meterVersion({
    meter: aggregation,
    rule: { aggregation, value: aggregation === "unique_count" ? "/user" : "/value" },
  }),
);

const minutes = fc.integer({ min: -40, max: 40 });
const nth = fc.nat(IDS - 1);
const value = fc.constantFrom(...VALUES);
const user = fc.constantFrom("ann", "bob", "eve");
/** `back` names a record so many places before the end; one that holds no usage event is corrected as if it were the first id's. */
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ does: fc.constant("usage"), nth, value, user, minutes }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("void"), back: fc.nat(12) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("replace"), back: fc.nat(12), nth, value, user, minutes }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("activate"), meter: fc.nat(METERS.length - 1) }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("end"), meter: fc.nat(METERS.length - 1), minutes }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("again"), back: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("tick") }) },
);
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

/** What happens in one partition, and after how many of the records its stream is closed, if ever. */
export const partitionTraffic = fc.record({
  steps: fc.array(step, { minLength: 1, maxLength: 36, size: "max" }),
  closedAfter: fc.option(fc.nat(36)),
});
type PartitionTraffic = typeof partitionTraffic extends fc.Arbitrary<infer Value> ? Value : never;

/** The log of these partitions: a record every five minutes, hence three in a booking window. */
export function randomLog(partitions: readonly PartitionTraffic[]): MemoryLog {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock: clockAfterTraffic(), isManual: true });
  for (const [partition, { steps, closedAfter }] of partitions.entries()) {
    const events: string[] = [];
    for (const [place, taken] of steps.entries()) {
      const fact: ControlFact | null = place === closedAfter ? { kind: "stream.close" } : null;
      const record = fact === null ? recordOf(partition, taken, { events, log }) : controlRecord(fact, partition);
      log.appendAt(NOON + place * 5 * MINUTE_MS, record);
      events.push(isEvent(record) ? String(record.value) : (events[0] ?? textOf(partition, { nth: 0 })));
    }
  }
  return log;
}

interface Usage {
  readonly nth: number;
  readonly value?: string;
  readonly user?: string;
  readonly minutes?: number;
}

function usageOf(
  partition: number,
  { nth: n, value: amount = "1", user: name = "ann", minutes: at = 0 }: Usage,
): LogRecord {
  const data = { value: amount, user: name };
  return usageRecord({ id: idsOf(partition, IDS)[n] ?? "", occurredAt: NOON + at * MINUTE_MS, data });
}

function textOf(partition: number, usage: Usage): string {
  return String(usageOf(partition, usage).value);
}

function isEvent(record: LogRecord): boolean {
  return Object.keys(record.headers).length === 0;
}

function recordOf(partition: number, taken: Step, { events, log }: { events: string[]; log: MemoryLog }): LogRecord {
  const control = (fact: ControlFact): LogRecord => controlRecord(fact, partition);
  // An offset that is not below the record's own is among them: the correction is then invalid.
  const offset = "back" in taken ? Math.abs(events.length - taken.back) : 0;
  const event = events[offset] ?? textOf(partition, { nth: 0 });
  switch (taken.does) {
    case "usage":
      return usageOf(partition, taken);
    case "void":
      return control({ kind: "void", offset, event });
    case "replace":
      return control({ kind: "replace", offset, event, replacement: textOf(partition, taken) });
    case "activate":
      return control(activation(METERS[taken.meter]));
    case "end": {
      const { mode, meter, version } = METERS[taken.meter] ?? meterVersion();
      const until = formatInstant(NOON + (taken.minutes + 40) * 3 * MINUTE_MS);
      return control({ kind: "meter.end", mode, meter, version, until });
    }
    case "again": {
      const earlier = log.entries(partition)[offset];
      if (earlier === undefined) return control({ kind: "tick" });
      return { partition, key: earlier.key, value: earlier.value, headers: earlier.headers };
    }
    case "tick":
      return control({ kind: "tick" });
  }
}
