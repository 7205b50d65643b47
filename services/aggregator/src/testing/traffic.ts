/** A small log with every kind of record in it, the same in every run. */
import { type ControlFact, formatInstant, type LogRecord } from "@tallyhouse/domain";
import { MemoryLog, meterVersion } from "@tallyhouse/testkit";
import { activation, controlRecord, HOUR_MS, idsOf, ManualClock, NOON, STREAM, usageRecord } from "./scenario.ts";

const WINDOW_MS = STREAM.bookingWindowSeconds * 1_000;

/**
 * Per partition: counted, duplicates, conflicts, late, early, invalid, misplaced, control records; meters that join in the middle, corrections, an end; receivedAt
 * that crosses five booking windows and steps back once.
 */
export function trafficLog(): MemoryLog {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock: clockAfterTraffic(), isManual: true });
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) {
    for (const [place, record] of trafficOf(partition).entries()) {
      const stepBackMs = place === 9 ? WINDOW_MS : 0;
      log.appendAt(NOON + place * 120_000 - stepBackMs, record);
    }
  }
  return log;
}

/** Time goes on after the traffic: records that are appended later are received after it. */
export function clockAfterTraffic(): ManualClock {
  const clock = new ManualClock();
  clock.at = NOON + 2 * HOUR_MS;
  return clock;
}

/** The value of every meter's path, and the dimension. */
export function model(name: string, inputTokens: number | string): Record<string, unknown> {
  return { model: name, inputTokens };
}

function trafficOf(partition: number): LogRecord[] {
  const ids = idsOf(partition, 11);
  const id = (n: number): string => ids[n] ?? "";
  const [foreign, foreignUntimed] = idsOf(1 - partition, 12).slice(-2) as [string, string];
  const latest = meterVersion({ meter: "last_input", rule: { aggregation: "latest" } });
  const byModel = meterVersion({ meter: "by_model", rule: { dimensions: { model: "/model" } } });
  const early = [
    controlRecord(activation(), partition),
    usageRecord({ id: id(0), data: model("small", 10) }),
    usageRecord({ id: id(1), data: model("large", "0.000000001") }),
    usageRecord({ id: id(0), data: model("small", 10) }),
    usageRecord({ id: foreign, data: model("small", 1_000) }, partition),
    controlRecord(activation(byModel), partition),
    usageRecord({ id: id(2), data: model("small", -3) }),
    usageRecord({ id: id(0), data: model("small", 11) }),
    usageRecord({ id: id(3), occurredAt: NOON - 900 * HOUR_MS }),
    usageRecord({ id: id(3), occurredAt: NOON + 1_000, data: model("large", 7) }),
    controlRecord({ kind: "tick" }, partition),
    controlRecord(activation(latest), partition),
    usageRecord({ id: id(4), occurredAt: NOON + 600_000, data: model("large", 4) }),
    usageRecord({ id: id(5), occurredAt: NOON + 600_000, data: model("large", 5) }),
    usageRecord({ id: foreignUntimed, occurredAt: null, data: model("small", 2_000) }, partition),
    usageRecord({ id: "unread", occurredAt: NOON + 50 * HOUR_MS }, partition),
    usageRecord({ id: id(2), data: model("small", -3) }),
    { partition, key: null, value: Buffer.from("{"), headers: {} },
  ];
  return [...early, ...correctionsOf(partition, early, ids)];
}

/** Corrections of the early records: some that take effect, each of them repeated, and some that must not. */
function correctionsOf(partition: number, early: readonly LogRecord[], ids: readonly string[]): LogRecord[] {
  const models = meterVersion({ meter: "models", rule: { aggregation: "unique_count", value: "/model" } });
  const event = (offset: number): string => String(early[offset]?.value);
  const usage = (n: number, at: number, data: Record<string, unknown>): LogRecord =>
    usageRecord({ id: ids[n] ?? "", occurredAt: NOON + at * 60_000, data }, partition);
  const control = (fact: ControlFact): LogRecord => controlRecord(fact, partition);
  const end = (minutes: number): LogRecord =>
    control({
      kind: "meter.end",
      mode: "live",
      meter: "input_tokens",
      version: 1,
      until: formatInstant(NOON + minutes * 60_000),
    });
  // Counted before by_model was activated, which takes it back all the same.
  const voided = control({ kind: "void", offset: 1, event: event(1) });
  const replacement = String(usage(6, -1_000_000, model("medium", 50)).value);
  const replaced = control({ kind: "replace", offset: 13, event: event(13), replacement });
  const unreadable = String(usage(7, 20, model("small", "many")).value);
  const known = String(usage(2, 20, model("small", 1)).value);
  return [
    control(activation(models)),
    usage(7, 35, model("small", 3)),
    voided,
    usage(8, 35, model("huge", 8)),
    voided,
    replaced,
    usage(9, 36, model("huge", 9)),
    replaced,
    control({ kind: "replace", offset: 12, event: event(12), replacement: unreadable }),
    control({ kind: "replace", offset: 12, event: event(12), replacement: known }),
    control({ kind: "void", offset: 1_000, event: event(12) }),
    end(75),
    end(70),
    end(80),
    end(50),
    usage(10, 71, model("small", 100)),
    usageRecord({ id: ids[0] ?? "", data: model("small", 10) }),
  ];
}
