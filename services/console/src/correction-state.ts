/** Whether corrections have taken effect, as the fold's own rows say. */
import { createHash } from "node:crypto";
import { type AnalyticsStore, DAY_MS } from "@tallyhouse/domain";
import { bodyTextOf, type Correction } from "./correction-store.ts";
import { type LogPlace, placeText } from "./raw-rows.ts";

/** `pending`: not folded yet. `refused`: the log refused it, or another correction of the target came first. */
export type CorrectionState = "pending" | "applied" | "refused";

/** A correction that took effect: where its record stands, and the record's value. */
export interface AppliedRecord {
  readonly offset: number;
  readonly body: string;
}

/** Bytes of an invalid record that its raw row keeps, as base64 (services/aggregator/src/step.ts). */
const INVALID_BYTES_KEPT = 65_536;

/**
 * The correction of each target that took effect; at most one has. Keys are {@link placeText}.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readApplied(
  analytics: AnalyticsStore,
  targets: readonly LogPlace[],
): Promise<ReadonlyMap<string, AppliedRecord>> {
  const found = new Map<string, AppliedRecord>();
  for (const chunk of chunksOf(targets)) {
    for (const { place, offset, body } of await selectApplied(analytics, chunk))
      found.set(place, { offset: Number(offset), body });
  }
  return found;
}

function selectApplied(
  analytics: AnalyticsStore,
  targets: readonly LogPlace[],
): Promise<{ place: string; offset: string; body: string }[]> {
  return analytics.select(
    `SELECT concat(toString(stream), '/', toString(logPartition), '/', target) AS place,
       toString(logOffset) AS offset, body
     FROM control_records WHERE kind IN ('void', 'replace') AND target IN {targets:Array(String)}
       AND has({places:Array(String)}, place)`,
    { targets: targets.map(({ offset }) => String(offset)), places: targets.map(placeText) },
  );
}

/** Few enough to be bound in the URL of a request to ClickHouse: 64 characters each, 6 kB. */
const CHUNK_SIZE = 100;

function chunksOf<Each>(all: readonly Each[]): Each[][] {
  const count = Math.ceil(all.length / CHUNK_SIZE);
  return Array.from({ length: count }, (_, index) => all.slice(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE));
}

/**
 * State of each correction, in their order.
 *
 * A raw row alone proves a refusal only where it is `invalid`: the row of an effect may be seen a moment before its control
 * record is. In a stream that has ended, what did not take effect never will.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readStates(
  { analytics, stream }: { readonly analytics: AnalyticsStore; readonly stream: { readonly streamId: number } },
  corrections: readonly Correction[],
): Promise<readonly CorrectionState[]> {
  const applied = await readApplied(
    analytics,
    corrections.map(({ place }) => place),
  );
  const open = corrections.filter(({ place }) => !applied.has(placeText(place)));
  const refused = await readRefused(analytics, open);
  return corrections.map((correction) => {
    const record = applied.get(placeText(correction.place));
    if (record !== undefined) return record.body === bodyTextOf(correction) ? "applied" : "refused";
    const isOver = correction.refusedAt !== null || correction.place.stream !== stream.streamId;
    return isOver || refused.has(correction.id) ? "refused" : "pending";
  });
}

/** Those whose control record the fold found invalid. */
async function readRefused(
  analytics: AnalyticsStore,
  corrections: readonly Correction[],
): Promise<ReadonlySet<number>> {
  const refused = new Set<number>();
  for (const chunk of chunksOf(corrections)) for (const id of await selectRefused(analytics, chunk)) refused.add(id);
  return refused;
}

async function selectRefused(analytics: AnalyticsStore, corrections: readonly Correction[]): Promise<number[]> {
  const digests = new Map(corrections.map((correction) => [refusedDigest(correction), correction.id]));
  const rows = await analytics.select<{ digest: string }>(
    `SELECT DISTINCT lower(hex(SHA256(payload))) AS digest FROM raw_events
     WHERE mode = 'none' AND status = 'invalid' AND has({digests:Array(String)}, digest)
       AND bookedAt >= fromUnixTimestamp64Milli({sinceAt:Int64}, 'UTC')`,
    {
      digests: [...digests.keys()],
      // A day for clocks that differ: the condition is there to leave older parts of the table alone.
      sinceAt: Math.min(...corrections.map(({ createdAt }) => createdAt)) - DAY_MS,
    },
  );
  return rows.flatMap(({ digest }) => digests.get(digest) ?? []);
}

function refusedDigest(correction: Correction): string {
  const kept = Buffer.from(bodyTextOf(correction), "utf8").subarray(0, INVALID_BYTES_KEPT).toString("base64");
  return createHash("sha256").update(kept).digest("hex");
}
