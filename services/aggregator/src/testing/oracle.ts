import type { MemoryLog } from "@tallyhouse/testkit";
import { expect } from "vitest";
import type { ModelStore, NamedRow } from "./model-store.ts";
import { referenceFold, type ReferenceRollup, spelled } from "./reference.ts";
import { STREAM } from "./scenario.ts";

/**
 * Everything the store holds is a function of the log: each offset has its raw row with the reference's status, each rollup row
 * ever written states its prefix, and the newest rows are the fold of the whole log.
 */
export function expectStoreEqualsLog(store: ModelStore, log: MemoryLog): void {
  const uniques = new Set<string>();
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) {
    const entries = log.entries(partition);
    const whole = referenceFold(partition, entries);
    const raw = store.rows("raw_events").filter((row) => row.logPartition === partition);
    const statuses = raw.sort((a, b) => a.logOffset - b.logOffset).map((row) => row.status);
    expect(statuses, `statuses of partition ${partition}`).toEqual(whole.statuses);

    const furthest = store.progress
      .filter((row) => row.partition === partition)
      .toSorted((a, b) => a.nextOffset - b.nextOffset)
      .at(-1);
    expect(furthest, `progress of partition ${partition}`).toMatchObject({
      nextOffset: entries.length,
      logClockAt: whole.clockAt,
      counted: whole.statuses.filter((status) => status === "counted").length,
    });

    for (const row of store.rows("rollup").filter(isLiveOf(partition))) {
      const prefix = whole.rollupsAt[row.ver] ?? new Map<string, ReferenceRollup>();
      expect(valuesOf(row), `${keyOf(row)} at version ${row.ver}`).toEqual(spelledAt(prefix, keyOf(row)));
    }
    const newest = store.newestRollups().filter(isLiveOf(partition));
    const stored = Object.fromEntries(newest.map((row) => [keyOf(row), valuesOf(row)]));
    const wanted = Object.fromEntries([...whole.rollups].map(([key, rollup]) => [key, spelled(rollup)]));
    expect(stored, `rollups of partition ${partition}`).toEqual(wanted);

    const controls = store.rows("control_records").filter((row) => row.logPartition === partition);
    const kinds = Object.fromEntries(controls.map((row) => [row.logOffset, `${row.kind} ${row.target}`.trim()]));
    expect(kinds, `control records of partition ${partition}`).toEqual(Object.fromEntries(whole.controls));
    for (const hash of whole.uniques) uniques.add(hash);
  }
  const hashes = store.rows("rollup_uniq").map((row) => `${keyOf(row)}|${row.valueHash}`);
  expect(hashes.toSorted(), "hashes of unique_count").toEqual([...uniques].toSorted());
  expectRedirectsArrived(store);
}

/** A copy that was not appended before progress passed its original is a lost usage event. */
function expectRedirectsArrived(store: ModelStore): void {
  const rows = store.rows("raw_events");
  const identityOf = (row: NamedRow<"raw_events">): string =>
    JSON.stringify([row.mode, row.customer, row.source, row.id]);
  const arrived = new Set(rows.filter(({ status }) => status !== "redirected").map(identityOf));
  const lost = rows.filter((row) => row.status === "redirected" && !arrived.has(identityOf(row)));
  expect(lost, "redirected and never arrived").toEqual([]);
}

function spelledAt(
  rollups: ReadonlyMap<string, Parameters<typeof spelled>[0]>,
  key: string,
): Record<string, string | number> | null {
  const rollup = rollups.get(key);
  return rollup === undefined ? null : spelled(rollup);
}

function keyOf(row: NamedRow<"rollup" | "rollup_uniq">): string {
  const { mode, customer, meter, meterVersion, windowStart, dims, bookedStart } = row;
  return [mode, customer, meter, meterVersion, windowStart, JSON.stringify(dims), bookedStart].join("|");
}

function valuesOf(row: NamedRow<"rollup">): Record<string, string | number> {
  const { counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset } = row;
  return { counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset };
}

/** Lane 1 is the backfills', and has an oracle of its own. */
function isLiveOf(partition: number): (row: NamedRow<"rollup">) => boolean {
  return ({ logPartition, lane }) => logPartition === partition && lane === 0;
}
