import type { AnalyticsStore, StreamIdentity } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import {
  countIdentities,
  type HourOfIdentities,
  type IdentityQuery,
  readIdentities,
  readLastIdentity,
  type StoredIdentity,
  type VisitIdentities,
} from "./identity-rows.ts";
import { type ControlRow, controlOf, type StoredControl } from "./stored-control.ts";
import {
  PROGRESS_COLUMNS,
  type ProgressRow,
  RESULT_COLUMNS,
  type ResultTable,
  type RollupKey,
  type RollupValues,
  type Row,
} from "./tables.ts";

/** The newest row of one rollup key. */
export interface StoredRollup {
  readonly key: RollupKey;
  readonly ver: number;
  readonly values: RollupValues;
}

/** The offsets of a partition's last raw rows, for finding a hole. Null fields when there is no row. */
export interface RawTail {
  readonly firstOffset: number;
  readonly distinctOffsets: number;
}

/**
 * Where results become durable and where a restart finds them. Every row overwrites by key and version, and equal key and version
 * mean equal rows, so storing one twice changes no total (G2).
 */
export interface ResultStore {
  /**
   * Stores rows of one table. Safe to repeat: yes.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); any part may or may not be stored.
   */
  insertRows(table: ResultTable, rows: readonly Row[]): Promise<void>;
  /**
   * Records how far partitions are stored; call it only when every row of those prefixes is acknowledged. Safe to repeat: yes, the
   * highest offset wins.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
   */
  recordProgress(rows: readonly ProgressRow[]): Promise<void>;
  /** The partition's highest progress, null when nothing was ever stored. Read it before everything else of an open. */
  readProgress(partition: number): Promise<ProgressRow | null>;
  /** How many identities {@link readIdentities} will visit, by the hour of their booking; copies of one may count again. */
  countIdentities(query: IdentityQuery): Promise<readonly HourOfIdentities[]>;
  /**
   * Visits the identities counted below the offset and booked at or after `bookedFrom`. `expected`: about how many.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); any part may have been visited, so begin again with an empty index.
   */
  readIdentities(query: IdentityQuery & { expected: number }, visit: VisitIdentities): Promise<void>;
  /** The last identity of those that {@link readIdentities} visits, with the raw row it was made from; null without either. */
  readLastIdentity(query: IdentityQuery): Promise<StoredIdentity | null>;
  /** Control records below the offset that took effect, in log order; one may stand twice. */
  readControls(query: { partition: number; belowOffset: number }): Promise<readonly StoredControl[]>;
  /** The newest row of every live key booked at or after `bookedFrom` (epoch seconds), with no upper bound. */
  readRollups(query: { partition: number; bookedFrom: number }): Promise<readonly StoredRollup[]>;
  /** Offsets in [fromOffset, belowOffset) whose rows were booked at or after `bookedFromAt` (epoch ms); null for none. */
  readRawTail(query: {
    partition: number;
    fromOffset: number;
    belowOffset: number;
    bookedFromAt: number;
  }): Promise<RawTail | null>;
}

/** The result store of one stream on the tables of infra/clickhouse. `writer` and the clock's storedAt appear in `progress` alone. */
export function createResultStore(input: {
  analytics: AnalyticsStore;
  stream: StreamIdentity;
  clock: Clock;
  writer: string;
}): ResultStore {
  const { analytics, clock, writer } = input;
  const { streamId } = input.stream;
  return {
    insertRows: (table, rows) => analytics.insert({ table, columns: RESULT_COLUMNS[table], rows }),
    async recordProgress(rows) {
      const storedAt = clock.now();
      await analytics.insert({
        table: "progress",
        columns: PROGRESS_COLUMNS,
        rows: rows.map((row) => [
          streamId,
          row.partition,
          row.nextOffset,
          row.logClockAt,
          row.lastRecord,
          row.counted,
          writer,
          storedAt,
        ]),
      });
    },
    async readProgress(partition) {
      const [row] = await analytics.select<Record<"offsetText" | "clockText" | "hashText" | "countedText", string>>(
        PROGRESS_SQL,
        { stream: streamId, partition },
      );
      if (row === undefined) return null;
      return {
        partition,
        nextOffset: Number(row.offsetText),
        logClockAt: Number(row.clockText),
        lastRecord: BigInt(row.hashText),
        counted: Number(row.countedText),
      };
    },
    countIdentities: (query) => countIdentities(analytics, { ...query, stream: streamId }),
    readIdentities: (query, visit) => readIdentities(analytics, { ...query, stream: streamId }, visit),
    readLastIdentity: (query) => readLastIdentity(analytics, { ...query, stream: streamId }),
    async readControls(query) {
      const rows = await analytics.select<ControlRow>(CONTROLS_SQL, { stream: streamId, ...query });
      return rows.map(controlOf);
    },
    async readRollups(query) {
      const rows = await analytics.select<RollupSqlRow>(ROLLUPS_SQL, { stream: streamId, ...query });
      return rows.map(rollupOf);
    },
    async readRawTail(query) {
      const [row] = await analytics.select<{ firstOffset: string; distinctOffsets: string }>(RAW_TAIL_SQL, {
        stream: streamId,
        ...query,
      });
      if (row === undefined || Number(row.distinctOffsets) === 0) return null;
      return { firstOffset: Number(row.firstOffset), distinctOffsets: Number(row.distinctOffsets) };
    },
  };
}

/** One row: the highest progress. Not FINAL: the newest row is wanted whether or not a merge happened. */
const PROGRESS_SQL = `
SELECT toString(nextOffset) AS offsetText, toString(toUnixTimestamp64Milli(logClock)) AS clockText,
  toString(lastRecord) AS hashText, toString(counted) AS countedText
FROM progress WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16}
ORDER BY nextOffset DESC LIMIT 1`;

/** Bodies of corrections are whole usage events, and only their target is wanted. */
const CONTROLS_SQL = `
SELECT kind, target, if(kind IN ('void', 'replace'), '', body) AS body, toString(logOffset) AS offsetText,
  toString(toUnixTimestamp64Milli(bookedAt)) AS bookedAtText
FROM control_records
WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16} AND logOffset < {belowOffset:UInt64}
ORDER BY logOffset`;

/** FINAL: the highest \`ver\` of each key. Lane 1 (backfill) is written whole and never continued. */
const ROLLUPS_SQL = `
SELECT mode, customer, meter, meterVersion, toUnixTimestamp(windowStart) AS windowStartSeconds, dims,
  toUnixTimestamp(bookedStart) AS bookedStartSeconds, toString(ver) AS ver, toString(counted) AS counted, toString(voided) AS voided,
  toString(sumQty) AS sumQty, toString(minQty) AS minQty, toString(maxQty) AS maxQty, toString(lastQty) AS lastQty,
  toString(toUnixTimestamp64Milli(lastAt)) AS lastAtMs, toString(lastOffset) AS lastOffset
FROM rollup FINAL WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16} AND lane = 0
  AND bookedStart >= toDateTime({bookedFrom:UInt32}, 'UTC')`;

const RAW_TAIL_SQL = `
SELECT toString(min(logOffset)) AS firstOffset, toString(uniqExact(logOffset)) AS distinctOffsets
FROM raw_events WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16}
  AND logOffset >= {fromOffset:UInt64} AND logOffset < {belowOffset:UInt64}
  AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')`;

interface RollupSqlRow {
  readonly mode: "live" | "test";
  readonly customer: string;
  readonly meter: string;
  readonly meterVersion: number;
  readonly windowStartSeconds: number;
  readonly dims: readonly string[];
  readonly bookedStartSeconds: number;
  readonly ver: string;
  readonly counted: string;
  readonly voided: string;
  readonly sumQty: string;
  readonly minQty: string;
  readonly maxQty: string;
  readonly lastQty: string;
  readonly lastAtMs: string;
  readonly lastOffset: string;
}

function rollupOf(row: RollupSqlRow): StoredRollup {
  const { mode, customer, meter, meterVersion, dims } = row;
  return {
    key: {
      mode,
      customer,
      meter,
      meterVersion,
      windowStart: row.windowStartSeconds,
      dims,
      bookedStart: row.bookedStartSeconds,
    },
    ver: Number(row.ver),
    values: {
      counted: Number(row.counted),
      voided: Number(row.voided),
      sumQty: scaledOf(row.sumQty),
      minQty: scaledOf(row.minQty),
      maxQty: scaledOf(row.maxQty),
      lastQty: scaledOf(row.lastQty),
      lastAt: Number(row.lastAtMs),
      lastOffset: Number(row.lastOffset),
    },
  };
}

const FRACTION_DIGITS = 9;

/** Decimal(38,9) text as a scaled bigint. A sum may have 29 integer digits, more than one usage event's quantity. */
export function scaledOf(text: string): bigint {
  const [integer = "", fraction = ""] = text.split(".");
  return BigInt(integer + fraction.padEnd(FRACTION_DIGITS, "0"));
}
