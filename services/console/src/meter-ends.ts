/** Whether the log took the ends that were asked for; those that it did not take are sent again, later. */
import {
  type AnalyticsStore,
  type ControlStore,
  formatInstant,
  type Mode,
  parseInstant,
  TallyhouseError,
} from "@tallyhouse/domain";
import { type Clock, type Component, type Logger, pause } from "@tallyhouse/runtime";
import { z } from "zod";
import { type ChangeTime, type ControlStream, earliestEnd, enqueue } from "./meter-changes.ts";

/** How often the console looks; an end is missed when the log was away for ten minutes, so there is no hurry. */
const ROUND_MS = 10_000;

const EndSchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  until: z.string(),
});

/** The end of one version as the log has it. */
export interface StoredEnd {
  /** Partition of the current stream → the instant that holds there: the earliest that was taken, epoch milliseconds. */
  readonly untilAt: ReadonlyMap<number, number>;
}

/**
 * Ends that took effect, by `mode/key/version`.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readStoredEnds(
  analytics: AnalyticsStore,
  stream: Pick<ControlStream, "streamId">,
): Promise<ReadonlyMap<string, StoredEnd>> {
  const rows = await analytics.select<{ partition: number; body: string }>(
    `SELECT DISTINCT logPartition AS partition, body FROM control_records
     WHERE stream = {stream:UInt16} AND kind = 'meter.end'`,
    { stream: stream.streamId },
  );
  const found = new Map<string, { untilAt: Map<number, number> }>();
  for (const { partition, body } of rows) {
    const { mode, meter, version, until } = EndSchema.parse(JSON.parse(body));
    const key = endKeyOf(mode, meter, version);
    const entry = found.get(key) ?? { untilAt: new Map<number, number>() };
    const untilAt = parseInstant(until) ?? 0;
    entry.untilAt.set(partition, Math.min(entry.untilAt.get(partition) ?? untilAt, untilAt));
    found.set(key, entry);
  }
  return found;
}

/** Key of {@link readStoredEnds}. */
export function endKeyOf(mode: Mode, meter: string, version: number): string {
  return `${mode}/${meter}/${version}`;
}

/** What a reader is told of an end. */
export interface ShownEnd {
  /** Until when the version counts: the latest of all partitions once the log has it everywhere, before that what was asked for. */
  readonly until: string;
  readonly state: "stored" | "pending";
}

/** `askedAt` is what the control store says; `stored` what the log took, if anything. */
export function shownEnd(askedAt: number, stored: StoredEnd | undefined, stream: ControlStream): ShownEnd {
  const isStored = (stored?.untilAt.size ?? 0) >= stream.partitionCount;
  const untilAt = isStored ? Math.max(...(stored?.untilAt.values() ?? [])) : askedAt;
  return { until: formatInstant(untilAt), state: isStored ? "stored" : "pending" };
}

interface EndPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
}

/** An end that was sent again. */
export interface ResentEnd {
  readonly mode: Mode;
  readonly key: string;
  readonly version: number;
  readonly partitions: readonly number[];
  readonly until: string;
}

/**
 * Sends ends again that came too late in the log: a partition whose clock is within MAX_AHEAD of the end, or past it, and that did not
 * take it, never will. They get the earliest instant that is still possible, in those partitions alone: where the end was taken, it
 * holds. Until then the version goes on counting there, which the listing shows as a later `until`.
 *
 * The clocks first: read after the control records, a clock could have passed an end whose record was read too early to be seen.
 * Safe to repeat: yes; two consoles at once send it once, because the first one moves the instant that both compare with.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function resendLateEnds(
  ports: EndPorts,
  input: ChangeTime & { readonly stream: ControlStream },
): Promise<ResentEnd[]> {
  const { analytics, control } = ports;
  const { stream, now, maxAheadMs } = input;
  const asked = await control.query<{ mode: Mode; key: string; version: number; ends_at: Date }>(
    "SELECT mode, key, version, ends_at FROM meter_version WHERE ends_at IS NOT NULL ORDER BY mode, key, version",
  );
  if (asked.length === 0) return [];
  const clocks = await readClocks(analytics, stream);
  const stored = await readStoredEnds(analytics, stream);
  const resent: ResentEnd[] = [];
  for (const { mode, key, version, ends_at: endsAt } of asked) {
    const taken = stored.get(endKeyOf(mode, key, version))?.untilAt;
    const partitions = [...clocks]
      .filter(([partition, clockAt]) => taken?.has(partition) !== true && clockAt + maxAheadMs >= endsAt.getTime())
      .map(([partition]) => partition);
    if (partitions.length === 0) continue;
    const until = formatInstant(earliestEnd(input));
    const isMoved = await control.transaction(async (tx) => {
      const moved = await tx.query(
        `UPDATE meter_version SET ends_at = $1 WHERE mode = $2 AND key = $3 AND version = $4 AND ends_at = $5 RETURNING version`,
        [new Date(parseInstant(until) ?? 0), mode, key, version, endsAt],
      );
      if (moved.length === 0) return false;
      await enqueue(tx, { fact: { kind: "meter.end", mode, meter: key, version, until }, stream, now, partitions });
      return true;
    });
    if (isMoved) resent.push({ mode, key, version, partitions, until });
  }
  return resent;
}

/** Each partition's log clock, epoch milliseconds: every record booked before it is stored, and so are its control records. */
async function readClocks(analytics: AnalyticsStore, stream: ControlStream): Promise<ReadonlyMap<number, number>> {
  const rows = await analytics.select<{ partition: number; clock: string }>(
    `SELECT logPartition AS partition, toString(toUnixTimestamp64Milli(max(logClock))) AS clock FROM progress
     WHERE stream = {stream:UInt16} AND logPartition < {partitionCount:UInt32} GROUP BY logPartition`,
    { stream: stream.streamId, partitionCount: stream.partitionCount },
  );
  return new Map(rows.map(({ partition, clock }) => [partition, Number(clock)]));
}

/** Looks for late ends as long as the console runs. Outages are left to the next round. */
export function createEndWatch(
  config: { readonly stream: ControlStream; readonly maxAheadMs: number },
  ports: EndPorts & { readonly clock: Clock; readonly logger: Logger },
): Component {
  return {
    name: "console ends of meters",
    async run(signal) {
      while (!signal.aborted) {
        await pause(ROUND_MS, signal);
        if (signal.aborted) return;
        await round();
      }
    },
    close: () => Promise.resolve(),
  };

  async function round(): Promise<void> {
    const { clock, logger } = ports;
    try {
      for (const end of await resendLateEnds(ports, { ...config, now: clock.now() }))
        logger.warn(end, "the end of a meter came too late in the log: it is sent again and counts longer there");
    } catch (error) {
      if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
      logger.warn({ code: error.code, err: error }, "ends of meters were not looked at; the next round tries again");
    }
  }
}
