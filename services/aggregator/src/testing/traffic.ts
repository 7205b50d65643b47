/** A small log with every kind of record in it, the same in every run. */
import type { LogRecord } from "@tallyhouse/domain";
import { MemoryLog, meterVersion } from "@tallyhouse/testkit";
import { activation, controlRecord, HOUR_MS, idsOf, ManualClock, NOON, STREAM, usageRecord } from "./scenario.ts";

const WINDOW_MS = STREAM.bookingWindowSeconds * 1_000;

/**
 * Per partition: counted, duplicates, conflicts, late, early, invalid, misplaced, control records; a meter that joins in the middle; receivedAt that
 * crosses two booking windows and steps back once.
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

function trafficOf(partition: number): LogRecord[] {
  const [a, b, c, d, e, f] = idsOf(partition, 6) as [string, string, string, string, string, string];
  const [foreign, foreignUntimed] = idsOf(1 - partition, 12).slice(-2) as [string, string];
  const model = (name: string, inputTokens: number | string): Record<string, unknown> => ({ model: name, inputTokens });
  const latest = meterVersion({ meter: "last_input", rule: { aggregation: "latest" } });
  const byModel = meterVersion({ meter: "by_model", rule: { dimensions: { model: "/model" } } });
  return [
    controlRecord(activation(), partition),
    usageRecord({ id: a, data: model("small", 10) }),
    usageRecord({ id: b, data: model("large", "0.000000001") }),
    usageRecord({ id: a, data: model("small", 10) }),
    usageRecord({ id: foreign, data: model("small", 1_000) }, partition),
    controlRecord(activation(byModel), partition),
    usageRecord({ id: c, data: model("small", -3) }),
    usageRecord({ id: a, data: model("small", 11) }),
    usageRecord({ id: d, occurredAt: NOON - 900 * HOUR_MS }),
    usageRecord({ id: d, occurredAt: NOON + 1_000, data: model("large", 7) }),
    controlRecord({ kind: "tick" }, partition),
    controlRecord(activation(latest), partition),
    usageRecord({ id: e, occurredAt: NOON + 600_000, data: model("large", 4) }),
    usageRecord({ id: f, occurredAt: NOON + 600_000, data: model("large", 5) }),
    usageRecord({ id: foreignUntimed, occurredAt: null, data: model("small", 2_000) }, partition),
    usageRecord({ id: "unread", occurredAt: NOON + 50 * HOUR_MS }, partition),
    usageRecord({ id: c, data: model("small", -3) }),
    { partition, key: null, value: Buffer.from("{"), headers: {} },
  ];
}
