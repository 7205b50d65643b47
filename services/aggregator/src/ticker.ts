import { type ControlKey, encodeControl, type EventLog } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { OpenSlot } from "./partitions.ts";

/** Silence after which a partition gets a tick, unless the booking window is shorter. */
const SILENCE_MAX_MS = 15_000;
/** A partition that is behind and silent for this long is stuck: with a round of a second, unready within 30 s. */
const STUCK_MS = 25_000;

/** How long a partition is silent before a tick moves its clock. */
export function silenceMsOf(bookingWindowSeconds: number): number {
  return Math.min(SILENCE_MAX_MS, bookingWindowSeconds * 1_000);
}

/**
 * Finds silent partitions: those at the end of the log get a tick, because only a record can move their clock and with it the
 * watermark; those behind it for 25 s are stuck.
 *
 * When one is due, all that were silent for half of the time are ticked with it: from then on they are due together, so an idle system
 * has one append and one flush per silence, not one per partition.
 * @returns the stuck partitions
 * @throws {TallyhouseError} LOG_UNAVAILABLE (retry): the next round tries again.
 */
export async function tickSilent(
  slots: readonly OpenSlot[],
  ports: { log: EventLog; clock: Clock; key: ControlKey; silenceMs: number },
): Promise<readonly number[]> {
  const { log, clock, key, silenceMs } = ports;
  const now = clock.now();
  if (!slots.some((slot) => slot.isVerified && now - slot.activeAt >= silenceMs)) return [];
  const silent = slots.filter((slot) => slot.isVerified && now - slot.activeAt >= silenceMs / 2);
  const found = await Promise.all(silent.map(async (slot) => ({ slot, bounds: await log.bounds(slot.partition) })));
  const atEnd = found.filter(({ slot, bounds }) => slot.task.nextOffset === bounds.endOffset).map(({ slot }) => slot);
  if (atEnd.length > 0) {
    await log.append(atEnd.map(({ partition }) => encodeControl({ fact: { kind: "tick" }, partition, key })));
    // Not earlier: a tick that failed is due again at once.
    for (const slot of atEnd) slot.activeAt = clock.now();
  }
  return silent
    .filter((slot) => !atEnd.includes(slot) && now - slot.activeAt >= STUCK_MS)
    .map(({ partition }) => partition);
}
