import { isDeepStrictEqual } from "node:util";
import type { Mode } from "@tallyhouse/domain";
import type { HourOfIdentities, IdentityQuery, StoredIdentity, VisitIdentities } from "../identity-rows.ts";
import { type RawTail, type ResultStore, scaledOf, type StoredRollup } from "../result-store.ts";
import { controlOf, type StoredControl } from "../stored-control.ts";
import { type ProgressRow, RESULT_COLUMNS, type ResultTable, type Row } from "../tables.ts";

interface LogPlace {
  readonly stream: number;
  readonly logPartition: number;
}

/** Rows by column name, with the types the aggregator inserts. */
interface NamedRows {
  readonly raw_events: LogPlace & {
    readonly logOffset: number;
    readonly mode: string;
    readonly customer: string;
    readonly source: string;
    readonly id: string;
    readonly type: string;
    readonly occurredAt: number;
    readonly receivedAt: number;
    readonly bookedAt: number;
    readonly decidedAt: number;
    readonly status: string;
    readonly reason: string;
    readonly payloadHash: bigint | number;
    readonly payload: string;
  };
  readonly identities: LogPlace & {
    readonly fpHigh: bigint;
    readonly fpLow: number;
    readonly logOffset: number;
    readonly bookedAt: number;
    readonly payloadCheck: number;
  };
  readonly rollup: LogPlace & {
    readonly mode: "live" | "test";
    readonly customer: string;
    readonly meter: string;
    readonly meterVersion: number;
    readonly windowStart: number;
    readonly dims: readonly string[];
    readonly lane: number;
    readonly bookedStart: number;
    readonly ver: number;
    readonly counted: number;
    readonly voided: number;
    readonly sumQty: string;
    readonly minQty: string;
    readonly maxQty: string;
    readonly lastQty: string;
    readonly lastAt: number;
    readonly lastOffset: number;
  };
  readonly rollup_uniq: {
    readonly mode: "live" | "test";
    readonly customer: string;
    readonly meter: string;
    readonly meterVersion: number;
    readonly windowStart: number;
    readonly dims: readonly string[];
    readonly valueHash: bigint;
    readonly bookedStart: number;
  };
  readonly control_records: LogPlace & {
    readonly logOffset: number;
    readonly bookedAt: number;
    readonly kind: string;
    readonly target: string;
    readonly body: string;
  };
}
export type NamedRow<Table extends ResultTable> = NamedRows[Table];

/** Columns whose equality means "the same row": two such rows that differ break invariant 2 of the design. */
const KEYS = {
  raw_events: ["stream", "logPartition", "logOffset"],
  identities: ["stream", "logPartition", "fpHigh", "fpLow", "logOffset"],
  rollup: [
    "mode",
    "customer",
    "meter",
    "meterVersion",
    "windowStart",
    "dims",
    "stream",
    "logPartition",
    "lane",
    "bookedStart",
    "ver",
  ],
  rollup_uniq: RESULT_COLUMNS.rollup_uniq,
  control_records: ["stream", "logPartition", "logOffset"],
} as const;

/**
 * The analytics tables as the aggregator uses them, in memory: rows are added and never leave, readers see the newest version of a
 * key. It also checks what no store checks: that equal key and version always mean equal rows (G3).
 */
export class ModelStore implements ResultStore {
  readonly progress: ProgressRow[] = [];
  readonly #tables: Record<ResultTable, Map<string, Row>> = {
    raw_events: new Map(),
    identities: new Map(),
    rollup: new Map(),
    rollup_uniq: new Map(),
    control_records: new Map(),
  };

  async insertRows(table: ResultTable, rows: readonly Row[]): Promise<void> {
    for (const row of rows) {
      const named = nameColumns(table, row);
      const key = textOf(KEYS[table].map((column) => (named as unknown as Record<string, unknown>)[column]));
      const before = this.#tables[table].get(key);
      if (before !== undefined && !isDeepStrictEqual(before, row))
        throw new Error(`${table}: two rows for one key and version: ${textOf(before)} and ${textOf(row)}`);
      this.#tables[table].set(key, row);
    }
  }

  async recordProgress(rows: readonly ProgressRow[]): Promise<void> {
    this.progress.push(...rows);
  }

  async readProgress(partition: number): Promise<ProgressRow | null> {
    const rows = this.progress.filter((row) => row.partition === partition);
    return rows.reduce<ProgressRow | null>(
      (best, row) => (row.nextOffset >= (best?.nextOffset ?? 0) ? row : best),
      null,
    );
  }

  async countIdentities(query: IdentityQuery): Promise<readonly HourOfIdentities[]> {
    return this.#identitiesOf(query).map(({ bookedAt }) => ({ hour: Math.floor(bookedAt / 3_600), identities: 1 }));
  }

  async readIdentities(query: IdentityQuery, visit: VisitIdentities): Promise<void> {
    for (const { fpHigh, fpLow, bookedAt, payloadCheck } of this.#identitiesOf(query))
      visit(Uint32Array.of(Number(fpHigh & 0xffffffffn), Number(fpHigh >> 32n), fpLow, bookedAt, payloadCheck));
  }

  async readLastIdentity(query: IdentityQuery): Promise<StoredIdentity | null> {
    const [last] = this.#identitiesOf(query).sort((a, b) => b.logOffset - a.logOffset);
    const raw = this.rows("raw_events").find(
      (row) => row.logPartition === last?.logPartition && row.logOffset === last.logOffset,
    );
    if (last === undefined || raw === undefined) return null;
    const { customer, source, id } = raw;
    return { mode: raw.mode as Mode, customer, source, id, fpHigh: last.fpHigh, fpLow: last.fpLow };
  }

  #identitiesOf({ partition, belowOffset, bookedFrom }: IdentityQuery): NamedRow<"identities">[] {
    return this.rows("identities").filter(
      (row) => row.logPartition === partition && row.logOffset < belowOffset && row.bookedAt >= bookedFrom,
    );
  }

  async readControls(query: { partition: number; belowOffset: number }): Promise<readonly StoredControl[]> {
    return this.rows("control_records")
      .filter((row) => row.logPartition === query.partition && row.logOffset < query.belowOffset)
      .sort((a, b) => a.logOffset - b.logOffset)
      .map((row) => controlOf({ ...row, offsetText: String(row.logOffset), bookedAtText: String(row.bookedAt) }));
  }

  async readRollups(query: { partition: number; bookedFrom: number }): Promise<readonly StoredRollup[]> {
    return this.newestRollups()
      .filter((row) => row.lane === 0 && row.logPartition === query.partition && row.bookedStart >= query.bookedFrom)
      .map((row) => ({
        key: { ...row },
        ver: row.ver,
        values: {
          counted: row.counted,
          voided: row.voided,
          sumQty: scaledOf(row.sumQty),
          minQty: scaledOf(row.minQty),
          maxQty: scaledOf(row.maxQty),
          lastQty: scaledOf(row.lastQty),
          lastAt: row.lastAt,
          lastOffset: row.lastOffset,
        },
      }));
  }

  async readRawTail(query: {
    partition: number;
    fromOffset: number;
    belowOffset: number;
    bookedFromAt: number;
  }): Promise<RawTail | null> {
    const offsets = this.rows("raw_events")
      .filter((row) => row.logPartition === query.partition && row.bookedAt >= query.bookedFromAt)
      .map((row) => row.logOffset)
      .filter((offset) => offset >= query.fromOffset && offset < query.belowOffset);
    return offsets.length === 0 ? null : { firstOffset: Math.min(...offsets), distinctOffsets: offsets.length };
  }

  /** Every row ever stored, by column name. */
  rows<Table extends ResultTable>(table: Table): NamedRow<Table>[] {
    return [...this.#tables[table].values()].map((row) => nameColumns(table, row));
  }

  /** The newest row of every rollup key: what a reader's FINAL shows. */
  newestRollups(): NamedRow<"rollup">[] {
    const newest = new Map<string, NamedRow<"rollup">>();
    for (const row of this.rows("rollup")) {
      const key = textOf(KEYS.rollup.filter((column) => column !== "ver").map((column) => row[column]));
      const before = newest.get(key);
      if (before === undefined || row.ver > before.ver) newest.set(key, row);
    }
    return [...newest.values()];
  }

  /** Damage: the raw row of one offset is lost. */
  loseRawRow(partition: number, offset: number): void {
    for (const [key, row] of this.#tables.raw_events) {
      const { logPartition, logOffset } = nameColumns("raw_events", row);
      if (logPartition === partition && logOffset === offset) this.#tables.raw_events.delete(key);
    }
  }
}

/** A row never changes once it is made, and simulations look at each many times. */
const named = new WeakMap<Row, object>();

/** The row's values by column name. */
export function nameColumns<Table extends ResultTable>(table: Table, row: Row): NamedRow<Table> {
  let found = named.get(row);
  if (found === undefined) {
    found = Object.fromEntries(RESULT_COLUMNS[table].map((column, at) => [column, row[at]]));
    named.set(row, found);
  }
  return found as unknown as NamedRow<Table>;
}

/** JSON text with bigints, for keys and messages. */
export function textOf(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) => (typeof inner === "bigint" ? `${inner}n` : inner));
}
