import type { EventLog } from "@tallyhouse/domain";
import type { BackfillStore } from "../backfill-store.ts";
import type { ResultStore } from "../result-store.ts";

/** Where a process dies around one call: before its effect, after half of it, or after all of it with the answer lost. */
export type FaultMode = "before" | "half" | "after";

/** The death of a process at its n-th call of a port; every later call of that process fails too. */
export class Fault {
  readonly #at: number;
  readonly #mode: FaultMode;
  /** What was called, in order; the last one is where the process died. */
  readonly calls: string[] = [];
  isHit = false;

  constructor(at: number, mode: FaultMode) {
    this.#at = at;
    this.#mode = mode;
  }

  /** Runs the effect unless the process is dead; `half` is what a torn write leaves. */
  async around<Result>(call: string, effect: () => Promise<Result>, half?: () => Promise<unknown>): Promise<Result> {
    if (this.isHit) throw new Error(`killed at call ${this.#at}: the process is dead`);
    this.calls.push(call);
    if (this.calls.length !== this.#at) return effect();
    this.isHit = true;
    if (this.#mode === "half") await half?.();
    if (this.#mode === "after") await effect();
    throw new Error(`killed at call ${this.#at}, ${this.#mode}`);
  }
}

/** The ports of one process that dies as the fault says. What it wrote before stays. */
export function mortal(
  ports: { store: ResultStore; log: EventLog },
  fault: Fault,
): { store: ResultStore; log: EventLog } {
  const { store, log } = ports;
  return {
    store: {
      insertRows: (table, rows) =>
        fault.around(
          `insertRows ${table}`,
          () => store.insertRows(table, rows),
          () => store.insertRows(table, rows.slice(0, Math.ceil(rows.length / 2))),
        ),
      recordProgress: (rows) =>
        fault.around(
          "recordProgress",
          () => store.recordProgress(rows),
          () => store.recordProgress(rows.slice(0, 1)),
        ),
      readProgress: (partition) => fault.around("readProgress", () => store.readProgress(partition)),
      countIdentities: (query) => fault.around("countIdentities", () => store.countIdentities(query)),
      readIdentities: (query, visit) => fault.around("readIdentities", () => store.readIdentities(query, visit)),
      readLastIdentity: (query) => fault.around("readLastIdentity", () => store.readLastIdentity(query)),
      readControls: (query) => fault.around("readControls", () => store.readControls(query)),
      readRollups: (query) => fault.around("readRollups", () => store.readRollups(query)),
      readRawTail: (query) => fault.around("readRawTail", () => store.readRawTail(query)),
    },
    log: {
      name: log.name,
      partitionCount: log.partitionCount,
      append: (records) =>
        fault.around(
          "append",
          () => log.append(records),
          () => log.append(records.slice(0, 1)),
        ),
      subscribe: (subscriber) => fault.around("subscribe", () => log.subscribe(subscriber)),
      seek: (partition, offset) => log.seek(partition, offset),
      bounds: (partition) => fault.around("bounds", () => log.bounds(partition)),
      commitAdvisory: (offsets) => fault.around("commitAdvisory", () => log.commitAdvisory(offsets)),
    },
  };
}

/** The backfills' port of the same process. */
export function mortalBackfills(store: BackfillStore, fault: Fault): BackfillStore {
  return {
    readPending: (query) => fault.around("readPending", () => store.readPending(query)),
    readSlices: (query) => fault.around("readSlices", () => store.readSlices(query)),
    readPage: (query) => fault.around("readPage", () => store.readPage(query)),
    insertLane: (table, rows) =>
      fault.around(
        `insertLane ${table}`,
        () => store.insertLane(table, rows),
        () => store.insertLane(table, rows.slice(0, Math.ceil(rows.length / 2))),
      ),
    recordBackfills: (done) =>
      fault.around(
        "recordBackfills",
        () => store.recordBackfills(done),
        () => store.recordBackfills(done.slice(0, Math.ceil(done.length / 2))),
      ),
  };
}

/** The store, but for some methods. */
export function storeWith(store: ResultStore, overrides: Partial<ResultStore>): ResultStore {
  return {
    insertRows: (table, rows) => store.insertRows(table, rows),
    recordProgress: (rows) => store.recordProgress(rows),
    readProgress: (partition) => store.readProgress(partition),
    countIdentities: (query) => store.countIdentities(query),
    readIdentities: (query, visit) => store.readIdentities(query, visit),
    readLastIdentity: (query) => store.readLastIdentity(query),
    readControls: (query) => store.readControls(query),
    readRollups: (query) => store.readRollups(query),
    readRawTail: (query) => store.readRawTail(query),
    ...overrides,
  };
}
