import { type ControlFact, formatInstant, type LogRecord, uniqueHashOf } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { step } from "./step.ts";
import { RESULT_COLUMNS, type ResultTable } from "./tables.ts";
import { takeSnapshot, type Task, type TaskSnapshot } from "./task.ts";
import {
  activation,
  controlRecord,
  entryOf,
  foldContext,
  HOUR_MS,
  idsOf,
  NOON,
  STREAM,
  taskWith,
  usageRecord,
} from "./testing/scenario.ts";

const SUM = meterVersion();
const [ID = "", OTHER_ID = "", THIRD_ID = ""] = idsOf(0, 3);
const [FOREIGN_ID = ""] = idsOf(1, 1);
const ALL = { mode: "live", meter: "input_tokens", version: 1 } as const;

/** A task with one sum meter, and the records that it folds one after the other. */
class Folding {
  readonly task: Task = taskWith([SUM]);
  receivedAt = NOON;

  fold(...records: readonly LogRecord[]): this {
    for (const record of records) {
      step(this.task, entryOf(record, { offset: this.task.nextOffset, receivedAt: this.receivedAt }), foldContext());
    }
    return this;
  }

  control(...facts: readonly ControlFact[]): this {
    return this.fold(...facts.map((fact) => controlRecord(fact, 0)));
  }

  /** Everything since the last call. */
  take(): TaskSnapshot {
    const snapshot = takeSnapshot(this.task, STREAM);
    if (snapshot === null) throw new Error("nothing was folded");
    return snapshot;
  }

  rows(table: ResultTable): Record<string, unknown>[] {
    return named(this.take(), table);
  }
}

function named(snapshot: TaskSnapshot, table: ResultTable): Record<string, unknown>[] {
  return snapshot.rows[table].map((row) =>
    Object.fromEntries(RESULT_COLUMNS[table].map((column, at) => [column, row[at]])),
  );
}

const usage = (id: string, inputTokens: unknown = 10, occurredAt = NOON): LogRecord =>
  usageRecord({ id, occurredAt, data: { inputTokens } });
const textOf = (record: LogRecord): string => String(record.value);
const voidOf = (offset: number, record: LogRecord): ControlFact => ({ kind: "void", offset, event: textOf(record) });
const replaceOf = (offset: number, record: LogRecord, replacement: LogRecord): ControlFact => ({
  kind: "replace",
  offset,
  event: textOf(record),
  replacement: textOf(replacement),
});
const endAt = (at: number): ControlFact => ({ kind: "meter.end", ...ALL, until: formatInstant(at) });

describe("void", () => {
  test("G2 takes the contributions back once, and says so in the row; its record changes nothing when it comes again", () => {
    const original = usage(ID);
    const folding = new Folding().fold(original).control(voidOf(0, original), voidOf(0, original));
    const snapshot = folding.take();
    expect(named(snapshot, "rollup")).toMatchObject([
      { counted: 1, voided: 1, sumQty: "0", minQty: "10", maxQty: "10", lastQty: "10", lastOffset: 0 },
    ]);
    expect(named(snapshot, "raw_events").map(({ status, reason, mode }) => [status, reason, mode])).toEqual([
      ["counted", "", "live"],
      ["control", "void", "none"],
      ["control", "void", "none"],
    ]);
    expect(named(snapshot, "control_records")).toMatchObject([{ logOffset: 1, kind: "void", target: "0" }]);
    expect(snapshot.progress.counted).toBe(1);
  });

  test("G4 is booked in the window of now: what was booked before stays as it was", () => {
    const original = usage(ID);
    const folding = new Folding().fold(original);
    folding.take();
    folding.receivedAt = NOON + HOUR_MS;
    folding.control(voidOf(0, original));
    expect(folding.rows("rollup")).toMatchObject([
      {
        windowStart: NOON / 1_000,
        bookedStart: (NOON + HOUR_MS) / 1_000,
        counted: 0,
        voided: 1,
        sumQty: "-10",
        minQty: "0",
      },
    ]);
  });

  test("takes back what a meter activated meanwhile has by backfill; what it could not read it never had", () => {
    const original = usageRecord({ id: ID, data: { inputTokens: 10, seconds: "many", bytes: 7 } });
    const bytes = meterVersion({ meter: "bytes", rule: { value: "/bytes" } });
    const seconds = meterVersion({ meter: "seconds", rule: { value: "/seconds" } });
    const folding = new Folding().fold(original).control(activation(bytes), activation(seconds), voidOf(0, original));
    const rows = folding.rows("rollup").map(({ meter, counted, voided, sumQty }) => [meter, counted, voided, sumQty]);
    expect(rows).toEqual([
      ["input_tokens", 1, 1, "0"],
      ["bytes", 0, 1, "-7"],
    ]);
  });

  test("the identity stays known: usage that was taken back does not return by a retry", () => {
    const original = usage(ID);
    const folding = new Folding().fold(original).control(voidOf(0, original)).fold(original);
    expect(folding.rows("raw_events").map(({ status }) => status)).toEqual(["counted", "control", "duplicate"]);
  });

  const refused: [string, ControlFact][] = [
    ["of its own offset", voidOf(1, usage(ID))],
    ["of a later offset", voidOf(2, usage(ID))],
    ["of usage before 1970", voidOf(0, usage(ID, 10, -1))],
    ["of usage that is still too early", voidOf(0, usage(ID, 10, NOON + 301_000))],
  ];
  test.each(refused)("%s is invalid and changes nothing", (_what, fact) => {
    const snapshot = new Folding().fold(usage(ID)).control(fact).take();
    expect(named(snapshot, "raw_events")[1]).toMatchObject({ status: "invalid", reason: "CONTROL_RECORD_INVALID" });
    expect(named(snapshot, "rollup")).toMatchObject([{ counted: 1, voided: 0 }]);
    expect(snapshot.rows.control_records).toEqual([]);
  });
});

describe("replace", () => {
  test("G2 is a void and a counted row in one record, once", () => {
    const original = usage(ID);
    const replacement = usage(OTHER_ID, 25, NOON - 900 * HOUR_MS);
    const fact = replaceOf(0, original, replacement);
    const snapshot = new Folding().fold(original).control(fact, fact).take();
    expect(named(snapshot, "raw_events").slice(1)).toMatchObject([
      {
        status: "counted",
        reason: "replace",
        id: OTHER_ID,
        type: "llm.request",
        mode: "live",
        occurredAt: NOON - 900 * HOUR_MS,
        payload: '{"inputTokens":25}',
      },
      { status: "control", reason: "replace", mode: "none" },
    ]);
    expect(named(snapshot, "rollup")).toMatchObject([
      { counted: 1, voided: 1, sumQty: "0" },
      { counted: 1, voided: 0, sumQty: "25" },
    ]);
    expect(named(snapshot, "control_records")).toMatchObject([{ logOffset: 1, kind: "replace", target: "0" }]);
    expect(named(snapshot, "identities").map(({ logOffset }) => logOffset)).toEqual([0, 1]);
    expect(snapshot.progress.counted).toBe(2);
  });

  test("of one key leaves one row with both", () => {
    const original = usage(ID);
    const folding = new Folding().fold(original).control(replaceOf(0, original, usage(OTHER_ID, 25)));
    expect(folding.rows("rollup")).toMatchObject([
      { counted: 2, voided: 1, sumQty: "25", minQty: "10", maxQty: "25", lastQty: "25", lastOffset: 1 },
    ]);
  });

  test("the replacement is known from then on, and can itself be corrected", () => {
    const original = usage(ID);
    const second = usage(OTHER_ID, 25);
    const folding = new Folding()
      .fold(original)
      .control(replaceOf(0, original, second))
      .fold(second)
      .control(voidOf(1, second));
    const snapshot = folding.take();
    expect(named(snapshot, "raw_events").map(({ status }) => status)).toEqual([
      "counted",
      "counted",
      "duplicate",
      "control",
    ]);
    expect(named(snapshot, "rollup")).toMatchObject([{ counted: 2, voided: 2, sumQty: "0" }]);
  });

  test("a target that is voided already: nothing, not even the replacement", () => {
    const original = usage(ID);
    const folding = new Folding().fold(original);
    folding.control(voidOf(0, original), replaceOf(0, original, usage(OTHER_ID, 25))).fold(usage(OTHER_ID, 30));
    const snapshot = folding.take();
    expect(named(snapshot, "raw_events").map(({ status, reason }) => [status, reason])).toEqual([
      ["counted", ""],
      ["control", "void"],
      ["control", "replace"],
      ["counted", ""],
    ]);
    expect(snapshot.rows.control_records).toHaveLength(1);
  });

  const refused: [string, LogRecord][] = [
    ["belongs to another partition", usage(FOREIGN_ID)],
    ["has the identity of counted usage", usage(ID, 25)],
    ["has an identity that is known", usage(THIRD_ID)],
    ["is too early", usage(OTHER_ID, 25, NOON + 301_000)],
    ["occurred before 1970", usage(OTHER_ID, 25, -1)],
    ["has a value that a meter cannot read", usage(OTHER_ID, "many")],
  ];
  test.each(refused)("whose replacement %s is invalid as a whole", (_what, replacement) => {
    const original = usage(ID);
    const folding = new Folding().fold(original, usage(THIRD_ID)).control(replaceOf(0, original, replacement));
    const snapshot = folding.take();
    expect(named(snapshot, "raw_events")[2]).toMatchObject({ status: "invalid", reason: "CONTROL_RECORD_INVALID" });
    expect(named(snapshot, "rollup")).toMatchObject([{ counted: 2, voided: 0, sumQty: "20" }]);
    expect(snapshot.rows.control_records).toEqual([]);
    expect(folding.control(voidOf(0, original)).rows("rollup")).toMatchObject([{ voided: 1, sumQty: "10" }]);
  });
});

describe("meter.end", () => {
  const MINUTE_MS = 60_000;

  test("usage at or after it does not count, usage before it does", () => {
    const folding = new Folding().control(endAt(NOON + 6 * MINUTE_MS));
    folding.receivedAt = NOON + 10 * MINUTE_MS;
    folding.fold(usage(ID, 1, NOON + 6 * MINUTE_MS - 1), usage(OTHER_ID, 2, NOON + 6 * MINUTE_MS));
    const snapshot = folding.take();
    expect(named(snapshot, "raw_events").map(({ status }) => status)).toEqual(["control", "counted", "counted"]);
    expect(named(snapshot, "rollup")).toMatchObject([{ counted: 1, sumQty: "1" }]);
    expect(named(snapshot, "control_records")).toMatchObject([{ logOffset: 0, kind: "meter.end", target: "" }]);
  });

  test("G3 is valid from the first instant on that could not be counted yet", () => {
    // Usage of the whole second 300 s ahead is accepted, so an end inside it would take counted usage back.
    const folding = new Folding().fold(usage(ID, 1, NOON + 300_999)).control(endAt(NOON + 300_999));
    folding.control(endAt(NOON + 301_000));
    const statuses = folding.rows("raw_events").map(({ status }) => status);
    expect(statuses).toEqual(["counted", "invalid", "control"]);
  });

  test("of several the earliest valid one holds; those that change nothing leave no row", () => {
    const folding = new Folding().control(...[20, 30, 20, 10, 1].map((minutes) => endAt(NOON + minutes * MINUTE_MS)));
    folding.receivedAt = NOON + 30 * MINUTE_MS;
    folding.fold(usage(ID, 1, NOON + 10 * MINUTE_MS), usage(OTHER_ID, 2, NOON + 10 * MINUTE_MS - 1));
    const snapshot = folding.take();
    expect(named(snapshot, "raw_events").map(({ status }) => status)).toEqual([
      "control",
      "control",
      "control",
      "control",
      "invalid",
      "counted",
      "counted",
    ]);
    expect(named(snapshot, "control_records").map(({ logOffset }) => logOffset)).toEqual([0, 3]);
    expect(named(snapshot, "rollup")).toMatchObject([{ sumQty: "2" }]);
  });

  test("of a version that is not active is invalid", () => {
    const other: ControlFact = { ...ALL, kind: "meter.end", version: 2, until: formatInstant(NOON + HOUR_MS) };
    expect(new Folding().control(other).rows("raw_events")).toMatchObject([{ status: "invalid" }]);
  });
});

test("G1 nothing behind stream.close counts or has an effect; only ticks go on, and the clock with them", () => {
  const original = usage(ID);
  const folding = new Folding().fold(original).control({ kind: "stream.close" });
  folding.fold(usage(OTHER_ID), usage(FOREIGN_ID), { partition: 0, key: null, value: null, headers: {} });
  folding.control(voidOf(0, original), { kind: "stream.close" }, activation(meterVersion({ version: 2 })));
  folding.receivedAt = NOON + HOUR_MS;
  const snapshot = folding.control({ kind: "tick" }).take();
  expect(named(snapshot, "raw_events").map(({ status, reason }) => `${String(status)} ${String(reason)}`)).toEqual([
    "counted ",
    "control stream.close",
    ...Array.from({ length: 6 }, () => "invalid STREAM_CLOSED"),
    "control tick",
  ]);
  expect(named(snapshot, "control_records")).toMatchObject([{ logOffset: 1, kind: "stream.close", bookedAt: NOON }]);
  expect(named(snapshot, "rollup")).toMatchObject([{ counted: 1, voided: 0 }]);
  expect(snapshot.redirects).toEqual([]);
  expect(snapshot.progress).toMatchObject({ logClockAt: NOON + HOUR_MS, counted: 1 });
});

describe("unique_count", () => {
  const USERS = meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } });
  const by = (id: string, user: unknown): LogRecord => usageRecord({ id, data: { user } });

  test("G2 one row per text, key and flush, whatever repeats it; the rollup counts the usage events", () => {
    const folding = new Folding().control(activation(USERS)).fold(by(ID, "ann"), by(OTHER_ID, "ann"));
    const snapshot = folding.take();
    expect(named(snapshot, "rollup_uniq")).toEqual([
      {
        mode: "live",
        customer: "cus_1",
        meter: "users",
        meterVersion: 1,
        windowStart: NOON / 1_000,
        dims: [],
        valueHash: uniqueHashOf("ann"),
        bookedStart: NOON / 1_000,
      },
    ]);
    expect(named(snapshot, "rollup")).toMatchObject([{ meter: "users", counted: 2, sumQty: "0" }]);
    folding.fold(by(THIRD_ID, "bob"));
    expect(folding.rows("rollup_uniq")).toMatchObject([{ valueHash: uniqueHashOf("bob") }]);
  });

  test("a void counts in the rollup and leaves the hash: its window is answered from the usage events", () => {
    const original = by(ID, "ann");
    const snapshot = new Folding().control(activation(USERS)).fold(original).control(voidOf(1, original)).take();
    expect(named(snapshot, "rollup")).toMatchObject([{ counted: 1, voided: 1 }]);
    expect(snapshot.rows.rollup_uniq).toHaveLength(1);
  });
});
