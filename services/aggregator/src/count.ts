/** Counting a usage event, and taking one back: the only two things that change a total. */
import { windowStartOf } from "@tallyhouse/domain";
import type { Candidate } from "./fold-context.ts";
import type { RollupContribution } from "./rollup-book.ts";
import { bookedStartOf } from "./tables.ts";
import type { Task } from "./task.ts";

/** What a usage event says to the meters of now. */
export interface Measured {
  readonly contributions: readonly RollupContribution[];
  /** The first meter that finds a value it cannot read; null when there is none. */
  readonly unreadable: string | null;
}

/** What the usage event says to each active meter. Nothing is added here, so the caller may still refuse all of it. */
export function measure(task: Task, { entry, event, context }: Omit<Candidate, "digests">): Measured {
  const contributions: RollupContribution[] = [];
  let unreadable: string | null = null;
  const occurredAt = event.occurredAt ?? entry.receivedAt;
  for (const meter of task.meters.of(event.mode, event.type)) {
    if (occurredAt < meter.compiled.fromAt || occurredAt >= meter.untilAt) continue;
    const contribution = meter.compiled.contributionOf(event);
    if (contribution.kind === "none") continue;
    if (contribution.kind === "invalid") {
      unreadable ??= meter.compiled.version.meter;
      continue;
    }
    contributions.push({
      meter,
      customer: event.customer,
      dims: contribution.dims,
      quantity: contribution.quantity,
      uniqueText: contribution.uniqueText,
      occurredAt,
      windowStart: windowStartOf(occurredAt) / 1_000,
      bookedStart: bookedStartOf(task.clockAt, context.stream),
      offset: entry.offset,
    });
  }
  return { contributions, unreadable };
}

/** Counts the usage event: from here on its identity is known, and its contributions are in the totals. */
export function count(task: Task, { entry, digests, context }: Candidate, measured: Measured): void {
  const bookedSeconds = Math.floor(task.clockAt / 1_000);
  task.index.put(digests, bookedSeconds, digests.payloadCheck);
  task.counted += 1;
  task.buffer.identities.push([
    context.stream.streamId,
    task.partition,
    digests.fpHigh,
    digests.word2,
    entry.offset,
    bookedSeconds,
    digests.payloadCheck,
  ]);
  for (const contribution of measured.contributions) task.rollups.add(contribution);
}

/**
 * Takes the usage event at `offset` back, with what the meters of now say about it: a meter that was activated after it was counted
 * has it by backfill. A value that a meter cannot read was never counted by it. Its identity stays known.
 */
export function takeBack(task: Task, offset: number, measured: Measured): void {
  task.voids.add(offset);
  for (const contribution of measured.contributions) task.rollups.takeBack(contribution);
}
