/** Looks for usage that was booked after the statement of its period was cut. */
import { floorTo } from "@tallyhouse/domain";
import { cutOf, type LateSpan, readLateSpans } from "@tallyhouse/usage";
import type { SealingRound } from "./context.ts";
import { markLatePeriods, moveLook, readLook } from "./statement-writes.ts";

/**
 * Marks closed periods whose usage changed since the last look. Looks end at multiples of the interval (UTC days by default), so late
 * usage makes at most one adjustment per statement and interval. The marks first, the look's end last: a crash in between marks again.
 * @returns the instant up to which everything was looked at: the cut of the adjustments; null before the first look.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function lookForLateUsage(round: SealingRound): Promise<number> {
  const { mode, settings, sealed } = round;
  const { analytics, clock, control } = round.ports;
  const lookedToAt = await readLook(control, mode);
  const beforeAt = cutOf(floorTo(sealed.watermarkAt, settings.rerateIntervalSeconds * 1_000), settings.stream);
  if (lookedToAt !== null && beforeAt <= lookedToAt) return lookedToAt;
  // The first look has nothing in front of it: what is sealed later is marked when it is sealed.
  if (lookedToAt !== null) {
    const question = { mode, sinceAt: lookedToAt, beforeAt, latenessMs: settings.latenessSeconds * 1_000 };
    let after: LateSpan | null = null;
    do {
      const page: Awaited<ReturnType<typeof readLateSpans>> = await readLateSpans(analytics, { ...question, after });
      if (page.spans.length > 0)
        await control.transaction((tx) => markLatePeriods(tx, { mode, spans: page.spans, at: clock.now() }));
      after = page.next;
    } while (after !== null);
  }
  await moveLook(control, mode, beforeAt);
  return beforeAt;
}
