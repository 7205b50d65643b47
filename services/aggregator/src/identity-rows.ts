/** What the dedupe index is rebuilt from: the rows of `identities`, read as bytes, without an object for each. */
import { type AnalyticsStore, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { ROW_WORDS } from "./dedupe-index.ts";

/** Identities of one partition that an open needs. `bookedFrom` in epoch seconds. */
export interface IdentityQuery {
  readonly partition: number;
  readonly belowOffset: number;
  readonly bookedFrom: number;
}

/** The identity of a counted usage event, and the fingerprint that was stored for it. */
export interface StoredIdentity {
  readonly mode: Mode;
  readonly customer: string;
  readonly source: string;
  readonly id: string;
  readonly fpHigh: bigint;
  readonly fpLow: number;
}

/** How many identities were booked in one hour since 1970. */
export interface HourOfIdentities {
  readonly hour: number;
  readonly identities: number;
}

/** Called with whole rows, in any order, one identity perhaps twice: {@link ROW_WORDS} words each, as DedupeIndex.putRows takes them. */
export type VisitIdentities = (rows: Uint32Array) => void;

/**
 * Rows of one statement. A page is a range of fpHigh: contiguous in the sort key, and of even size because a keyed hash is
 * uniform. 1 M rows are 20 MB on their way and half a second. The store ends a statement after 60 s, our own time included, so
 * a machine may be a hundred times as slow before an open cannot end.
 */
const PAGE_ROWS = 1_000_000;
const FINGERPRINTS = 2n ** 64n;
const WORD_BYTES = Uint32Array.BYTES_PER_ELEMENT;

/** Unmerged copies of one row are equal and harmless. */
const WHERE = `
FROM identities WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16}
  AND logOffset < {belowOffset:UInt64} AND bookedAt >= toDateTime({bookedFrom:UInt32}, 'UTC')`;

/** At most one row for each hour of the horizon. */
const HOURS_SQL = `
SELECT toUInt32(intDiv(toUnixTimestamp(bookedAt), 3600)) AS hour, toString(count()) AS identities ${WHERE} GROUP BY hour`;

/** RowBinary is little endian, so each row is five words: the low and the high one of fpHigh, then one of each column. */
const ROWS_SQL = `
SELECT fpHigh, fpLow, toUInt32(toUnixTimestamp(bookedAt)), payloadCheck ${WHERE}
  AND fpHigh >= {first:UInt64} AND fpHigh <= {last:UInt64}`;

const LAST_SQL = `
SELECT logOffset, toUInt32(toUnixTimestamp(bookedAt)) AS bookedSeconds, toString(fpHigh) AS fpHighText, fpLow ${WHERE}
ORDER BY logOffset DESC LIMIT 1`;

/** By the second of its booking, because raw rows are partitioned by day and sorted by customer. */
const IDENTITY_OF_SQL = `
SELECT mode, customer, source, id FROM raw_events
WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16} AND logOffset = {offset:UInt64}
  AND bookedAt >= toDateTime64({bookedSeconds:UInt32}, 3, 'UTC') AND bookedAt < toDateTime64({bookedSeconds:UInt32} + 1, 3, 'UTC')
LIMIT 1`;

/** See ResultStore.readLastIdentity. */
export async function readLastIdentity(
  analytics: AnalyticsStore,
  query: IdentityQuery & { stream: number },
): Promise<StoredIdentity | null> {
  const [last] = await analytics.select<{
    logOffset: string;
    bookedSeconds: number;
    fpHighText: string;
    fpLow: number;
  }>(LAST_SQL, { ...query });
  if (last === undefined) return null;
  const { stream, partition } = query;
  const { logOffset: offset, bookedSeconds, fpHighText, fpLow } = last;
  const [identity] = await analytics.select<Pick<StoredIdentity, "mode" | "customer" | "source" | "id">>(
    IDENTITY_OF_SQL,
    { stream, partition, offset, bookedSeconds },
  );
  return identity === undefined ? null : { ...identity, fpHigh: BigInt(fpHighText), fpLow };
}

/** Identities by the hour of their booking; copies that are not merged yet count as often as they are stored. */
export async function countIdentities(
  analytics: AnalyticsStore,
  query: IdentityQuery & { stream: number },
): Promise<readonly HourOfIdentities[]> {
  const rows = await analytics.select<{ hour: number; identities: string }>(HOURS_SQL, { ...query });
  return rows.map(({ hour, identities }) => ({ hour, identities: Number(identities) }));
}

/** Visits the partition's identities page by page; see ResultStore.readIdentities. */
export async function readIdentities(
  analytics: AnalyticsStore,
  query: IdentityQuery & { stream: number; expected: number },
  visit: VisitIdentities,
): Promise<void> {
  const { expected, ...bound } = query;
  const pages = BigInt(Math.max(1, Math.ceil(expected / PAGE_ROWS)));
  for (let page = 0n; page < pages; page += 1n) {
    const first = (FINGERPRINTS * page) / pages;
    const last = (FINGERPRINTS * (page + 1n)) / pages - 1n;
    const rows = new RowCutter(ROW_WORDS);
    await analytics.scan(ROWS_SQL, { ...bound, first: first.toString(), last: last.toString() }, (bytes) =>
      visit(rows.cut(bytes)),
    );
    rows.end();
  }
}

/** Pieces of bytes in, whole rows out; what a piece has of the row at its end is kept for the next. */
export class RowCutter {
  readonly #rowBytes: number;
  #rest = Buffer.alloc(0);

  constructor(rowWords: number) {
    this.#rowBytes = rowWords * WORD_BYTES;
  }

  cut(bytes: Uint8Array): Uint32Array {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const wholeBytes = all.length - (all.length % this.#rowBytes);
    this.#rest = Buffer.from(all.subarray(wholeBytes));
    if (all.byteOffset % WORD_BYTES === 0) return new Uint32Array(all.buffer, all.byteOffset, wholeBytes / WORD_BYTES);
    // A typed array cannot begin between two words of its buffer.
    const aligned = new Uint8Array(wholeBytes);
    aligned.set(all.subarray(0, wholeBytes));
    return new Uint32Array(aligned.buffer);
  }

  /** @throws {TallyhouseError} STORE_UNAVAILABLE (retry) when a row was begun and did not end. */
  end(): void {
    if (this.#rest.length === 0) return;
    throw new TallyhouseError({
      code: "STORE_UNAVAILABLE",
      action: "retry",
      message: `the analytics store's answer ended ${this.#rest.length} bytes into a row`,
    });
  }
}
