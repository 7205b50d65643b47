import { isDeepStrictEqual } from "node:util";
import { type MeterVersion, parseInstant } from "@tallyhouse/domain";
import type { BackfillQuery, BackfillStore, PendingBackfill, StoredUsage } from "../backfill-store.ts";
import type { Row } from "../tables.ts";
import { type ModelStore, textOf } from "./model-store.ts";

/** What backfills read and write, on the rows of a model store. Nothing ever leaves it, and equal keys must be equal rows. */
export class ModelBackfills implements BackfillStore {
  readonly #store: ModelStore;
  readonly done: PendingBackfill[] = [];
  readonly unique = new Map<string, Row>();

  constructor(store: ModelStore) {
    this.#store = store;
  }

  async readPending({
    partition,
    belowOffset,
  }: {
    partition: number;
    belowOffset: number;
  }): Promise<PendingBackfill[]> {
    return this.#store
      .rows("control_records")
      .filter((row) => row.kind === "meter.activate" && row.logPartition === partition && row.logOffset < belowOffset)
      .sort((a, b) => a.logOffset - b.logOffset)
      .map((row) => {
        const version = JSON.parse(row.body) as MeterVersion;
        const { stream, logOffset: activatedOffset, bookedAt: activatedAt } = row;
        const sources = [{ stream, belowOffset: activatedOffset, ver: activatedOffset }];
        return { stream, partition, version, activatedOffset, activatedAt, sources };
      })
      .filter((pending) => !this.done.some((each) => isDeepStrictEqual(each, pending)));
  }

  /** One customer each, so that a test has several. */
  async readSlices({ pending }: BackfillQuery) {
    const customers = [...new Set(this.#usageOf(pending).map(({ customer }) => customer))].sort();
    return customers.map((firstCustomer, at) => ({
      firstCustomer,
      nextCustomer: customers[at + 1] ?? null,
      days: [0, 1],
    }));
  }

  /** Even and odd offsets stand for two days: both hold usage of one key. The first row stands twice, as after a flush that was sent twice. */
  async readPage({ pending, slice, day, after }: Parameters<BackfillStore["readPage"]>[0]): Promise<StoredUsage[]> {
    const found = this.#usageOf(pending)
      .filter(({ customer, offset }) => customer === slice.firstCustomer && offset % 2 === day)
      .filter(({ offset }) => after === null || offset > after.offset);
    return [...found.slice(0, 1), ...found];
  }

  async insertLane(table: "rollup" | "rollup_uniq", rows: readonly Row[]): Promise<void> {
    if (table === "rollup") await this.#store.insertRows("rollup", rows);
    else for (const row of rows) this.unique.set(textOf(row), row);
  }

  async recordBackfills(done: readonly PendingBackfill[]): Promise<void> {
    this.done.push(...done);
  }

  #usageOf({ partition, version, activatedOffset }: PendingBackfill): StoredUsage[] {
    const taken = this.#store
      .rows("control_records")
      .filter(({ kind, logPartition }) => (kind === "void" || kind === "replace") && logPartition === partition)
      .filter(({ logOffset }) => logOffset < activatedOffset)
      .map(({ target }) => Number(target));
    return this.#store
      .rows("raw_events")
      .filter(({ logPartition, logOffset }) => logPartition === partition && logOffset < activatedOffset)
      .filter(
        ({ status, mode, type }) => status === "counted" && mode === version.mode && type === version.rule.eventType,
      )
      .filter(({ occurredAt }) => occurredAt >= (parseInstant(version.rule.from) ?? 0))
      .filter(({ logOffset }) => !taken.includes(logOffset))
      .sort((a, b) => a.logOffset - b.logOffset)
      .map(({ customer, occurredAt, logOffset: offset, payload }) => ({ customer, occurredAt, offset, payload }));
  }
}

/** For tests whose store is none of the model: nothing is ever due. */
export const NO_BACKFILLS: BackfillStore = {
  readPending: () => Promise.resolve([]),
  readSlices: () => Promise.resolve([]),
  readPage: () => Promise.resolve([]),
  insertLane: () => Promise.resolve(),
  recordBackfills: () => Promise.resolve(),
};
