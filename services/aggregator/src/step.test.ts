import { decodeUsageRecord, formatInstant, type LogRecord, type MeterVersion } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { step } from "./step.ts";
import { RESULT_COLUMNS, type ResultTable } from "./tables.ts";
import { takeSnapshot, type TaskSnapshot } from "./task.ts";
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
import { textOf } from "./testing/model-store.ts";

const METERS = [meterVersion()];
const [ID = "", OTHER_ID = "", THIRD_ID = ""] = idsOf(0, 3);
const [FOREIGN_ID = ""] = idsOf(1, 1);

interface Arrival {
  readonly record: LogRecord;
  readonly receivedAt?: number;
}

/** Folds the records into one snapshot. */
function fold(arrivals: readonly Arrival[], meters: readonly MeterVersion[] = METERS): TaskSnapshot {
  const task = taskWith(meters);
  const context = foldContext();
  for (const [offset, { record, receivedAt = NOON }] of arrivals.entries())
    step(task, entryOf(record, { offset, receivedAt }), context);
  const snapshot = takeSnapshot(task, STREAM);
  if (snapshot === null) throw new Error("nothing was folded");
  return snapshot;
}

function column(snapshot: TaskSnapshot, table: ResultTable, name: string): unknown[] {
  const at = (RESULT_COLUMNS[table] as readonly string[]).indexOf(name);
  return snapshot.rows[table].map((row) => row[at]);
}

const statuses = (snapshot: TaskSnapshot): unknown[] => column(snapshot, "raw_events", "status");
const garbage: LogRecord = { partition: 0, key: null, value: Buffer.from([0xff, 0xfe]), headers: {} };

describe("every record has one fate", () => {
  const first: Arrival = { record: usageRecord({ id: ID }) };
  const table: { name: string; arrivals: Arrival[]; status: string; reason: string }[] = [
    { name: "a usage event on time", arrivals: [first], status: "counted", reason: "" },
    { name: "the same again", arrivals: [first, first], status: "duplicate", reason: "" },
    {
      name: "the same identity with other data",
      arrivals: [first, { record: usageRecord({ id: ID, data: { inputTokens: 11 } }) }],
      status: "conflict",
      reason: "",
    },
    {
      name: "the same identity with another time",
      arrivals: [first, { record: usageRecord({ id: ID, occurredAt: NOON - 1 }) }],
      status: "conflict",
      reason: "",
    },
    {
      name: "older than the allowed age",
      arrivals: [{ record: usageRecord({ id: ID, occurredAt: NOON - 816 * HOUR_MS - 1_000 }) }],
      status: "too_late",
      reason: "",
    },
    {
      name: "exactly at the allowed age",
      arrivals: [{ record: usageRecord({ id: ID, occurredAt: NOON - 816 * HOUR_MS }) }],
      status: "counted",
      reason: "",
    },
    {
      name: "a retry that is too late by now is still a duplicate",
      arrivals: [first, { record: usageRecord({ id: ID }), receivedAt: NOON + 830 * HOUR_MS }],
      status: "duplicate",
      reason: "",
    },
    {
      name: "too far ahead",
      arrivals: [{ record: usageRecord({ id: ID, occurredAt: NOON + 301_000 }) }],
      status: "too_early",
      reason: "",
    },
    {
      name: "just not too far ahead",
      arrivals: [{ record: usageRecord({ id: ID, occurredAt: NOON + 300_000 }) }],
      status: "counted",
      reason: "",
    },
    { name: "no event at all", arrivals: [{ record: garbage }], status: "invalid", reason: "EVENT_NOT_AN_OBJECT" },
    {
      name: "a record without value",
      arrivals: [{ record: { ...garbage, value: null } }],
      status: "invalid",
      reason: "EVENT_NOT_AN_OBJECT",
    },
    {
      name: "a metered value that is no quantity",
      arrivals: [{ record: usageRecord({ id: ID, data: { inputTokens: "many" } }) }],
      status: "invalid",
      reason: "METER_VALUE_INVALID:input_tokens",
    },
    {
      name: "an identity of another partition",
      arrivals: [{ record: usageRecord({ id: FOREIGN_ID }, 0) }],
      status: "redirected",
      reason: "",
    },
    {
      name: "a tick",
      arrivals: [{ record: controlRecord({ kind: "tick" }, 0) }],
      status: "control",
      reason: "tick",
    },
    {
      name: "a meter activation",
      arrivals: [{ record: controlRecord(activation(), 0) }],
      status: "control",
      reason: "meter.activate",
    },
    {
      name: "a control record signed for another partition",
      arrivals: [{ record: controlRecord({ kind: "tick" }, 1) }],
      status: "invalid",
      reason: "CONTROL_RECORD_INVALID",
    },
  ];
  test.each(table)("$name: $status", ({ arrivals, status, reason }) => {
    const snapshot = fold(arrivals);
    expect(statuses(snapshot).at(-1)).toBe(status);
    expect(column(snapshot, "raw_events", "reason").at(-1)).toBe(reason);
  });

  test("G1 every offset has exactly one raw row, and only counted ones an identity", () => {
    const snapshot = fold(table.flatMap(({ arrivals }) => arrivals));
    const total = table.reduce((sum, { arrivals }) => sum + arrivals.length, 0);
    expect(column(snapshot, "raw_events", "logOffset")).toEqual(Array.from({ length: total }, (_, offset) => offset));
    const counted = statuses(snapshot).filter((status) => status === "counted").length;
    expect(snapshot.rows.identities).toHaveLength(counted);
    expect(snapshot.progress.counted).toBe(counted);
  });

  test("a marker of the log is a control row and moves the position", () => {
    const task = taskWith([]);
    step(task, { ...entryOf(garbage, { offset: 0, receivedAt: NOON }), value: null, marker: true }, foldContext());
    expect(takeSnapshot(task, STREAM)?.rows.raw_events[0]).toEqual([
      7,
      0,
      0,
      "none",
      "",
      "",
      "",
      "",
      0,
      NOON,
      NOON,
      0,
      "control",
      "marker",
      0,
      "",
    ]);
  });
});

describe("what a raw row keeps", () => {
  test("the data of a counted event, the identity and three clocks", () => {
    const decidedAt = NOON - 5_000;
    const snapshot = fold([
      { record: usageRecord({ id: ID, mode: "live", decidedAt, data: { inputTokens: 3 } }), receivedAt: NOON + 7 },
    ]);
    const [row = []] = snapshot.rows.raw_events;
    expect(row.slice(0, 14)).toEqual([
      7,
      0,
      0,
      "live",
      "cus_1",
      "api",
      ID,
      "llm.request",
      NOON,
      NOON + 7,
      NOON + 7,
      decidedAt,
      "counted",
      "",
    ]);
    expect(row[14]).toBeTypeOf("bigint");
    expect(row[15]).toBe('{"inputTokens":3}');
  });

  test("the record itself where nothing is counted; base64 where it may be no text", () => {
    const late = usageRecord({ id: ID, occurredAt: NOON - 900 * HOUR_MS });
    const snapshot = fold([{ record: late }, { record: garbage }]);
    expect(column(snapshot, "raw_events", "payload")).toEqual([late.value?.toString("utf8"), "//4="]);
  });

  test("an invalid record is cut after 64 KiB", () => {
    const snapshot = fold([{ record: { ...garbage, value: Buffer.alloc(100_000, 1) } }]);
    expect(Buffer.from(String(column(snapshot, "raw_events", "payload")[0]), "base64")).toHaveLength(65_536);
  });

  test("an instant before 1970 or after 2200 is stored as 1970", () => {
    const record = usageRecord({ id: ID, occurredAt: Date.UTC(1969, 0, 1) });
    const far = usageRecord({ id: OTHER_ID, occurredAt: Date.UTC(2200, 0, 1) });
    expect(column(fold([{ record }, { record: far }]), "raw_events", "occurredAt")).toEqual([0, 0]);
  });
});

describe("the log clock", () => {
  test("G3 never falls, when receivedAt steps back", () => {
    const snapshot = fold([
      { record: usageRecord({ id: ID }), receivedAt: NOON },
      { record: usageRecord({ id: OTHER_ID }), receivedAt: NOON - 3 * HOUR_MS },
      { record: usageRecord({ id: THIRD_ID }), receivedAt: NOON + 1 },
    ]);
    expect(column(snapshot, "raw_events", "bookedAt")).toEqual([NOON, NOON, NOON + 1]);
    expect(column(snapshot, "rollup", "bookedStart")).toEqual([NOON / 1_000]);
    expect(snapshot.progress.logClockAt).toBe(NOON + 1);
  });

  test("G2 age is judged by it: stepping back does not admit what is too late", () => {
    const age = { id: OTHER_ID, occurredAt: NOON - 816 * HOUR_MS - 1_000 };
    const snapshot = fold([
      { record: usageRecord({ id: ID }) },
      { record: usageRecord(age), receivedAt: NOON - HOUR_MS },
    ]);
    expect(statuses(snapshot)).toEqual(["counted", "too_late"]);
  });
});

describe("identity", () => {
  test("G2 a usage event past the horizon is new again only if it is on time", () => {
    const past = NOON + 841 * HOUR_MS;
    const snapshot = fold([
      { record: usageRecord({ id: ID }) },
      { record: usageRecord({ id: ID }), receivedAt: past },
      { record: usageRecord({ id: ID, occurredAt: past }), receivedAt: past },
    ]);
    expect(statuses(snapshot)).toEqual(["counted", "too_late", "counted"]);
  });

  test("an invalid metered value leaves the identity free, so that the sender may correct it", () => {
    const snapshot = fold([
      { record: usageRecord({ id: ID, data: { inputTokens: "many" } }) },
      { record: usageRecord({ id: ID, data: { inputTokens: 5 } }) },
    ]);
    expect(statuses(snapshot)).toEqual(["invalid", "counted"]);
    expect(column(snapshot, "raw_events", "id")).toEqual([ID, ID]);
  });

  test("a time that the gateway stamped is no part of the payload: a retry is a duplicate", () => {
    const snapshot = fold([
      { record: usageRecord({ id: ID, isStamped: true }) },
      { record: usageRecord({ id: ID, isStamped: true, occurredAt: NOON + 20 }) },
    ]);
    expect(statuses(snapshot)).toEqual(["counted", "duplicate"]);
  });
});

describe("redirect", () => {
  test("G1 the copy goes to the identity's partition, byte for byte", () => {
    const record = usageRecord({ id: FOREIGN_ID }, 0);
    const { redirects } = fold([{ record }]);
    expect(redirects).toEqual([{ ...record, partition: 1 }]);
  });

  test("G2 a copy of an event without time says when the log received it, so that a second copy is equal", () => {
    const { redirects } = fold([
      { record: usageRecord({ id: FOREIGN_ID, occurredAt: null }, 0), receivedAt: NOON + 42 },
    ]);
    const [copy] = redirects;
    const reading = copy === undefined ? null : decodeUsageRecord(copy);
    expect(reading).toMatchObject({ kind: "event", event: { id: FOREIGN_ID, occurredAt: NOON + 42, isStamped: true } });
  });
});

describe("meters", () => {
  test("a meter counts from its activation on, and from its `from` on", () => {
    const meter = meterVersion({ rule: { from: formatInstant(NOON) } });
    const snapshot = fold(
      [
        { record: usageRecord({ id: ID, data: { inputTokens: 1 } }) },
        { record: controlRecord(activation(meter), 0) },
        { record: usageRecord({ id: OTHER_ID, occurredAt: NOON - 1, data: { inputTokens: 10 } }) },
        { record: usageRecord({ id: THIRD_ID, occurredAt: NOON, data: { inputTokens: 100 } }) },
      ],
      [],
    );
    expect(statuses(snapshot)).toEqual(["counted", "control", "counted", "counted"]);
    expect(column(snapshot, "rollup", "sumQty")).toEqual(["100"]);
    expect(snapshot.rows.control_records).toHaveLength(1);
  });

  test("a repeated activation changes nothing and leaves no second control row; a tick leaves none", () => {
    const again = { record: controlRecord(activation(), 0) };
    const snapshot = fold(
      [again, again, { record: controlRecord({ kind: "tick" }, 0) }, { record: usageRecord({ id: ID }) }],
      [],
    );
    expect(snapshot.rows.control_records).toHaveLength(1);
    expect(column(snapshot, "rollup", "counted")).toEqual([1]);
  });

  test("a later version counts beside the older one; another mode or type does not count", () => {
    const snapshot = fold(
      [{ record: usageRecord({ id: ID }) }],
      [
        meterVersion(),
        meterVersion({ version: 2 }),
        meterVersion({ version: 3, mode: "test" }),
        meterVersion({ version: 4, rule: { eventType: "other" } }),
      ],
    );
    expect(column(snapshot, "rollup", "meterVersion")).toEqual([1, 2]);
  });
});

test("G3 the same records give byte-equal rows, in one flush or in many", () => {
  const records = [ID, OTHER_ID, ID, THIRD_ID].map((id) => ({ record: usageRecord({ id }) }));
  expect(textOf(fold(records))).toBe(textOf(fold(records)));
  const task = taskWith(METERS);
  const raw = records.flatMap(({ record }, offset) => {
    step(task, entryOf(record, { offset, receivedAt: NOON }), foldContext());
    return takeSnapshot(task, STREAM)?.rows.raw_events ?? [];
  });
  expect(textOf(raw)).toBe(textOf(fold(records).rows.raw_events));
});
