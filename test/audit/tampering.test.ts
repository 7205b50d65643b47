/** Each hand that alters what is stored is found by the check that is there for it, and by no other. */
import { partitionOfEvent } from "@tallyhouse/domain";
import { meterVersion, usageEvent } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { handsOn } from "./hands.ts";
import {
  activate,
  correct,
  openWorld,
  PARTITIONS,
  replacementOf,
  sendTraffic,
  STARTED_AT,
  type World,
} from "./world.ts";

const MINUTE_MS = 60_000;
/** A third of what each of the four customers has. */
const ROWS_PER_SLICE = 50;
/** Every audit is some twenty statements, on cores that others may share. */
const HOOK_TIMEOUT_MS = 240_000;

/** Few meters: a check of each takes a third of a second, and every check runs after each alteration. */
const METERS = [
  meterVersion({ meter: "tokens", rule: { dimensions: { model: "/model" } } }),
  meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } }),
];

let world: World;
const { keep, restore, remove, add, alter, addCopy } = handsOn(() => world.analytics);

beforeAll(async () => {
  world = await openWorld();
  const undecodable = (at: number): void =>
    world.append(
      at,
      Array.from({ length: PARTITIONS }, (_, partition) => ({
        partition,
        key: null,
        value: Buffer.from("{"),
        headers: {},
      })),
    );
  // At the beginning, at midnight and at the end of every partition stands a row that only A1 misses.
  undecodable(STARTED_AT);
  world.append(STARTED_AT, METERS.flatMap(activate));
  sendTraffic(world, 119);
  undecodable(STARTED_AT + 30 * MINUTE_MS - 1);
  sendTraffic(world, 200);
  await world.fold();
  for (const n of [3, 8]) await correct(world, n, null);
  await correct(world, 5, replacementOf(5));
  undecodable(STARTED_AT + 4 * 60 * MINUTE_MS);
  await world.fold();
  await keep();
  const before = await differing();
  if (before.length > 0) throw new Error(`rows differ before anything is altered: ${before.join(", ")}`);
}, HOOK_TIMEOUT_MS);

afterAll(() => world.close());

afterEach(restore);

async function differing(rowsPerSlice?: number): Promise<string[]> {
  const { checks } = await world.audit(rowsPerSlice === undefined ? {} : { rowsPerSlice });
  return checks.filter(({ differences }) => differences > 0).map(({ check }) => check);
}

/** An id whose home is, or is not, the partition of the chosen row. */
function strayId(partition: number): string {
  for (let n = 0; ; n += 1) {
    const id = `stray-${n}`;
    if (partitionOfEvent(usageEvent({ id }), PARTITIONS) !== partition) return id;
  }
}

const UNDECODABLE = "status = 'invalid' AND mode = 'none' AND logPartition = 1";
const UNREADABLE = "status = 'invalid' AND mode = 'live'";
const SUM = "meter = 'tokens' AND counted > 0 AND voided = 0";
const STRAY = `'live' AS mode, 'cus_1' AS customer, 'api' AS source, '${strayId(1)}' AS id, 'llm.request' AS type`;
const VOID = "kind = 'void'";
const TARGET =
  "(logPartition, toString(logOffset)) IN (SELECT logPartition, target FROM kept_control_records WHERE kind = 'void')";
const EDITED = "replaceOne(payload, '{', '{\"edited\":1,') AS payload";

/** What is done by hand → who finds it. */
const TAMPERINGS: readonly (readonly [string, string, () => Promise<void>])[] = [
  ["A1", "the first row of a partition is lost", () => remove("raw_events", UNDECODABLE)],
  [
    "A1",
    "the last row before midnight is lost",
    () =>
      remove(
        "raw_events",
        `${UNDECODABLE} AND toDate(bookedAt) = toDate(${STARTED_AT / 1_000})`,
        "logPartition, logOffset DESC",
      ),
  ],
  [
    "A1",
    "the newest row of a partition is lost",
    () => remove("raw_events", UNDECODABLE, "logPartition, logOffset DESC"),
  ],
  ["A1", "a duplicate in the middle of a day is lost", () => remove("raw_events", "status = 'duplicate'")],
  ["A1", "a row too late is lost", () => remove("raw_events", "status = 'too_late'")],
  ["A2", "the payload of one copy differs", () => addCopy(EDITED, "status = 'duplicate'")],
  [
    "A2",
    "the receivedAt of one copy differs",
    () => addCopy("addMilliseconds(receivedAt, 1) AS receivedAt", "status = 'counted'"),
  ],
  ["A2", "the reason of one copy differs", () => addCopy("'other' AS reason", UNDECODABLE)],
  ["A3", "a duplicate is called a conflict", () => alter("raw_events", "'conflict' AS status", "status = 'duplicate'")],
  ["A3", "a conflict is called a duplicate", () => alter("raw_events", "'duplicate' AS status", "status = 'conflict'")],
  ["A3", "a duplicate is called too late", () => alter("raw_events", "'too_late' AS status", "status = 'duplicate'")],
  [
    "A3",
    "usage too late is called too early",
    () => alter("raw_events", "'too_early' AS status", "status = 'too_late'"),
  ],
  [
    "A3",
    "usage on time is called too late",
    () => alter("raw_events", "bookedAt - INTERVAL 1 HOUR AS occurredAt", "status = 'too_late'"),
  ],
  [
    "A3",
    "a duplicate has another payload hash",
    () => alter("raw_events", "payloadHash + 1 AS payloadHash", "status = 'duplicate'"),
  ],
  ["A4", "a sum is one nanounit larger", () => add("rollup", "sumQty + toDecimal128('0.000000001', 9) AS sumQty", SUM)],
  ["A4", "a count is one larger", () => add("rollup", "counted + 1 AS counted", SUM)],
  ["A4", "something is voided that was not", () => add("rollup", "voided + 1 AS voided", SUM)],
  ["A4", "a smallest value is smaller", () => add("rollup", "minQty - toDecimal128('0.000000001', 9) AS minQty", SUM)],
  ["A4", "a largest value is larger", () => add("rollup", "maxQty + toDecimal128('0.000000001', 9) AS maxQty", SUM)],
  ["A4", "a latest value is another", () => add("rollup", "lastQty + toDecimal128('0.000000001', 9) AS lastQty", SUM)],
  ["A4", "a latest instant is later", () => add("rollup", "addMilliseconds(lastAt, 1) AS lastAt", SUM)],
  ["A4", "a latest offset is another", () => add("rollup", "lastOffset + 1 AS lastOffset", SUM)],
  ["A4", "a rollup row is lost", () => remove("rollup", SUM)],
  ["A4", "a dimension value is another", () => alter("rollup", "['SMALL'] AS dims", SUM)],
  ["A4", "a rollup row stands under another customer, too", () => add("rollup", "'cus_9' AS customer", SUM)],
  [
    "A4",
    "a rollup row is moved to another usage window",
    () =>
      alter(
        "rollup",
        "windowStart + 900 AS windowStart",
        `${SUM} AND windowStart < (SELECT max(windowStart) FROM kept_rollup)`,
      ),
  ],
  [
    "A4",
    "a rollup row is moved to another booking window",
    () => alter("rollup", "bookedStart - 86400 AS bookedStart", SUM),
  ],
  ["A4", "a backfilled row is invented", () => add("rollup", "1 AS lane", SUM)],
  ["A4", "a row of a meter that never was", () => add("rollup", "'phantom' AS meter", SUM)],
  ["A4", "a text of unique_count is lost", () => remove("rollup_uniq", "1")],
  ["A4", "a text of unique_count is invented", () => add("rollup_uniq", "valueHash + 1 AS valueHash", "1")],
  [
    "A4",
    "a counted payload has another value",
    () =>
      alter(
        "raw_events",
        "replaceOne(payload, '\"inputTokens\":7', '\"inputTokens\":8') AS payload",
        "status = 'counted' AND payload LIKE '%\"inputTokens\":7,%' AND reason = '' AND NOT " + TARGET,
      ),
  ],
  ["A5", "an identity is lost", () => remove("identities", "1")],
  [
    "A5",
    "an identity is invented",
    () =>
      add(
        "identities",
        "logOffset + 1 AS logOffset",
        "(logPartition, logOffset + 1) IN (SELECT logPartition, logOffset FROM kept_raw_events WHERE status != 'counted')",
      ),
  ],
  ["A5", "an identity has another payload", () => alter("identities", "payloadCheck + 1 AS payloadCheck", "1")],
  ["A5", "an identity has another second", () => alter("identities", "bookedAt - 1 AS bookedAt", "1")],
  ["A5", "progress counts one more", () => add("progress", "counted + 1 AS counted", "1")],
  ["A6", "a rollup row comes from beyond the log", () => add("rollup", "1000000 AS ver", SUM)],
  ["A6", "a raw row comes from beyond the log", () => add("raw_events", "1000000 AS logOffset", UNDECODABLE)],
  ["A6", "an identity comes from beyond the log", () => add("identities", "1000000 AS logOffset", "1")],
  [
    "A7",
    "a redirected record never arrived",
    () => alter("raw_events", `'redirected' AS status, ${STRAY}`, UNDECODABLE),
  ],
  [
    "A7",
    "a record stays in a partition that is not its own",
    () => alter("raw_events", `'invalid' AS status, ${STRAY}`, UNDECODABLE),
  ],
  [
    "A7",
    "a record is redirected from its own partition",
    () => alter("raw_events", "'redirected' AS status", UNREADABLE),
  ],
  ["A8", "a void names a missing target", () => alter("control_records", "'999999' AS target", VOID)],
  [
    "A8",
    "a void is recorded at another instant",
    () => alter("control_records", "addMilliseconds(bookedAt, 1) AS bookedAt", VOID),
  ],
  ["A8", "what is voided is not what is stored", () => alter("raw_events", EDITED, TARGET)],
  [
    "A8",
    "a void says another payload",
    () =>
      alter(
        "control_records",
        'replaceOne(body, \'\\\\"data\\\\":{\', \'\\\\"data\\\\":{\\\\"edited\\\\":1,\') AS body',
        VOID,
      ),
  ],
];

test.each(TAMPERINGS)("G3 %s finds that %s", { timeout: HOOK_TIMEOUT_MS }, async (check, _what, tamper) => {
  await tamper();
  expect(await differing()).toEqual([check]);
});

const IN_SLICES = TAMPERINGS.filter(
  ([check, what]) =>
    [
      "a duplicate has another payload hash",
      "a sum is one nanounit larger",
      "a text of unique_count is invented",
    ].includes(what) ||
    (check === "A7" && what === "a redirected record never arrived"),
);

test(
  "G3 cut into slices, some of them parts of one customer, nothing differs",
  { timeout: HOOK_TIMEOUT_MS },
  async () => {
    expect(await differing(ROWS_PER_SLICE)).toEqual([]);
  },
);

test.each(IN_SLICES)("G3 %s in slices finds that %s", { timeout: HOOK_TIMEOUT_MS }, async (check, _what, tamper) => {
  await tamper();
  expect(await differing(ROWS_PER_SLICE)).toEqual([check]);
});
