import { closeSync, fsyncSync, openSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { assert } from "./assert.ts";
import type { PackedEvent } from "./event-table.ts";
import type { StoredResult } from "./idempotency.ts";
import { syncFolder } from "./journal.ts";
import { encodeRecord, readRecords } from "./record-file.ts";
import {
  type Customer,
  type DeletedCustomer,
  type EmulatorState,
  emptyState,
  type IdentifierMemory,
  type Meter,
  type Mode,
  MODES,
} from "./state.ts";

/** Raised when the lines below change their meaning. */
const FORMAT = 1;
/** Rows of one kind in one line: about 100 kB. */
const ROWS_PER_RECORD = 500;
const FILE = "snapshot.ndjson";

type SnapshotRecord =
  | { kind: "head"; format: number; seq: number; seed: string; identifierMemory: IdentifierMemory }
  | { kind: "customers"; mode: Mode; rows: (Customer | DeletedCustomer)[] }
  | { kind: "meters"; mode: Mode; rows: Meter[] }
  | { kind: "events"; mode: Mode; rows: PackedEvent[] }
  | { kind: "results"; mode: Mode; rows: StoredResult[] }
  | { kind: "end"; records: number };

/**
 * Stores the whole state in `snapshot.ndjson`, so that older journal records are no longer needed. Returns its bytes.
 * Written beside, synced, then renamed: a crash at any point leaves the old snapshot or the new one, whole.
 */
export function writeSnapshot(folder: string, state: EmulatorState): number {
  const temporary = join(folder, `${FILE}.new`);
  const file = openSync(temporary, "w");
  let bytes = 0;
  try {
    let records = 0;
    for (const record of snapshotRecords(state)) {
      bytes += writeAll(file, Buffer.from(encodeRecord(record)));
      records += 1;
    }
    bytes += writeAll(file, Buffer.from(encodeRecord({ kind: "end", records } satisfies SnapshotRecord)));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, join(folder, FILE));
  syncFolder(folder);
  return bytes;
}

function writeAll(file: number, content: Buffer): number {
  let written = 0;
  while (written < content.length) written += writeSync(file, content, written);
  return written;
}

function* snapshotRecords(state: EmulatorState): Generator<SnapshotRecord> {
  const { seq, seed, identifierMemory } = state;
  yield { kind: "head", format: FORMAT, seq, seed, identifierMemory };
  for (const mode of MODES) {
    const data = state.modes[mode];
    for (const rows of chunks(data.customers.rows)) yield { kind: "customers", mode, rows };
    for (const rows of chunks(data.meters.rows)) yield { kind: "meters", mode, rows };
    for (const rows of chunks(packedEvents(data.events))) yield { kind: "events", mode, rows };
    for (const rows of chunks(data.idempotency.values())) yield { kind: "results", mode, rows };
  }
}

function* packedEvents(events: EmulatorState["modes"]["test"]["events"]): Generator<PackedEvent> {
  for (let position = 0; position < events.length; position += 1) yield events.pack(position);
}

function* chunks<T>(rows: Iterable<T>): Generator<T[]> {
  let chunk: T[] = [];
  for (const row of rows) {
    chunk.push(row);
    if (chunk.length < ROWS_PER_RECORD) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}

/**
 * Reads the folder's snapshot; without one, the state before the first command. `bytes` is its size.
 * @throws when the file is damaged: it is only ever renamed into place whole, so no crash explains that.
 */
export function readSnapshot(folder: string): { state: EmulatorState; bytes: number } {
  const path = join(folder, FILE);
  const state = emptyState();
  let records = 0;
  let isWhole = false;
  const end = readRecords(path, (value) => {
    const record = value as SnapshotRecord;
    if (record.kind === "end") isWhole = record.records === records;
    else restore(state, record);
    records += 1;
  });
  if (end.fileBytes > 0 && (!isWhole || end.validBytes !== end.fileBytes)) {
    throw new Error(`${path} is damaged; restore it from a copy`);
  }
  return { state, bytes: end.fileBytes };
}

function restore(state: EmulatorState, record: Exclude<SnapshotRecord, { kind: "end" }>): void {
  if (record.kind === "head") {
    assert(record.format === FORMAT, `the snapshot has format ${record.format}, this version reads ${FORMAT}`);
    state.seq = record.seq;
    state.seed = record.seed;
    state.identifierMemory = record.identifierMemory;
    return;
  }
  const data = state.modes[record.mode];
  switch (record.kind) {
    case "customers":
      for (const row of record.rows) data.customers.add(row);
      return;
    case "meters":
      for (const row of record.rows) {
        data.meters.add(row);
        if (row.status === "active") data.activeMeters.set(row.event_name, row.id);
      }
      return;
    case "events":
      for (const row of record.rows) data.events.pushPacked(row);
      return;
    case "results":
      for (const row of record.rows) data.idempotency.put(row);
      return;
  }
}
