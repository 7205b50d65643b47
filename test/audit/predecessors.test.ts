/** A stream that goes on from others: what they counted is known, their meters count on, and a new meter's backfill reads them. */
import { encodeUsageEvent, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";
import { meterVersion, until } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { handsOn } from "./hands.ts";
import {
  activate,
  controlOf,
  HANG_MS,
  nthEvent,
  openWorld,
  PARTITIONS,
  recordOf,
  runAggregator,
  sendTraffic,
  STARTED_AT,
  successorOf,
  type World,
} from "./world.ts";

const HOUR_MS = 3_600_000;
const HOOK_TIMEOUT_MS = 2 * HANG_MS;
const NEW_PARTITIONS = 2 * PARTITIONS;
/** The first half an hour of traffic of {@link sendTraffic}: the events of these numbers were counted, or have a fate of their own. */
const FIRST_EVENTS = 120;
const SECOND_AT = STARTED_AT + 6 * HOUR_MS;

const dimensions = { model: "/model" };
const users = { aggregation: "unique_count", value: "/user", dimensions } as const;
const INHERITED = [
  meterVersion({ meter: "tokens", rule: { dimensions } }),
  meterVersion({ meter: "users", rule: users }),
];
const LATE = [
  meterVersion({ meter: "late_tokens", rule: { dimensions } }),
  meterVersion({ meter: "late_users", rule: users }),
];

let first: World;
let second: World;
const { keep, restore, remove, add, alter } = handsOn(() => second.analytics);

/** The n-th usage event of the first traffic, with its occurredAt. */
const again = (n: number): UsageEvent => nthEvent(n, STARTED_AT + n * 15_000 - (n % 11) * 7 * 60_000);
const placed = (event: UsageEvent) => recordOf(event, partitionOfEvent(event, NEW_PARTITIONS));
const findings = async (world: World): Promise<unknown[]> =>
  (await world.audit()).checks.flatMap(({ check, examples }) => examples.map((example) => ({ check, example })));

beforeAll(async () => {
  first = await openWorld();
  first.append(STARTED_AT, INHERITED.flatMap(activate));
  sendTraffic(first, FIRST_EVENTS);
  first.append(STARTED_AT + HOUR_MS, controlOf({ kind: "stream.close" }));
  await first.fold();
  const before = await findings(first);
  if (before.length > 0) throw new Error(`the first stream differs: ${JSON.stringify(before)}`);
  second = successorOf(first, NEW_PARTITIONS);
  for (let n = 0; n < FIRST_EVENTS; n += 4) second.append(SECOND_AT, [placed(again(n))]);
  second.append(SECOND_AT, [placed({ ...again(1), data: { inputTokens: 999 } })]);
  for (let n = 500; n < 560; n += 1) {
    const at = SECOND_AT + (n - 500) * 60_000;
    second.append(at, [placed(nthEvent(n, at))]);
    if (n % 20 === 0) second.append(at, [placed(nthEvent(n, at))]);
  }
  for (const version of LATE)
    second.append(SECOND_AT + HOUR_MS, controlOf({ kind: "meter.activate", ...version }, undefined, NEW_PARTITIONS));
  await second.fold();
  await voidOf(505);
  // Every partition leaves the booking window of the activations.
  second.append(SECOND_AT + 3 * HOUR_MS, controlOf({ kind: "tick" }, undefined, NEW_PARTITIONS));
  await foldWithBackfills();
  await keep();
}, HOOK_TIMEOUT_MS);
afterEach(restore);
afterAll(() => first.close());

async function foldWithBackfills(): Promise<void> {
  const aggregator = runAggregator(second, second.analytics);
  const isBackfilled = async (): Promise<boolean> => {
    const [row] = await second.analytics.select<{ rows: string }>(
      "SELECT toString(count()) AS rows FROM backfills FINAL WHERE stream = 2 AND meter LIKE 'late%'",
    );
    return row?.rows === String(LATE.length * NEW_PARTITIONS);
  };
  await until(async () => aggregator.isStored() && (await isBackfilled()), {
    timeoutMs: HANG_MS,
    what: "everything is stored and backfilled",
  });
  aggregator.stop();
  await aggregator.ended;
}

/** Takes back a usage event of the second stream. */
async function voidOf(n: number): Promise<void> {
  const event = nthEvent(n, SECOND_AT + (n - 500) * 60_000);
  const [row] = await second.analytics.select<Record<"partition" | "offset", string>>(
    `SELECT toString(logPartition) AS partition, toString(logOffset) AS offset FROM raw_events
     WHERE stream = {stream:UInt16} AND id = {id:String} AND status = 'counted'`,
    { stream: second.stream.streamId, id: event.id },
  );
  const target = { stream: second.stream.streamId, offset: Number(row?.offset) };
  const fact = { kind: "void", ...target, event: encodeUsageEvent(event, {}).toString("utf8") } as const;
  second.append(SECOND_AT + 2 * HOUR_MS, controlOf(fact, Number(row?.partition)));
}

test(
  "G3 a stream of more partitions is clean: inherited identities and meters, a backfill that reaches back",
  { timeout: HOOK_TIMEOUT_MS },
  async () => {
    expect(await findings(second)).toEqual([]);
    const fates = await second.analytics.select(
      "SELECT DISTINCT toString(status) AS status FROM raw_events WHERE stream = 2 ORDER BY status",
    );
    expect(fates).toEqual(["conflict", "control", "counted", "duplicate"].map((status) => ({ status })));
    const lanes = await second.analytics.select(
      `SELECT DISTINCT meter, stream, lane FROM rollup WHERE meter IN ('tokens', 'late_tokens') ORDER BY ALL`,
    );
    expect(lanes).toEqual([
      { meter: "late_tokens", stream: 1, lane: 1 },
      { meter: "late_tokens", stream: 2, lane: 0 },
      { meter: "late_tokens", stream: 2, lane: 1 },
      { meter: "tokens", stream: 1, lane: 0 },
      { meter: "tokens", stream: 2, lane: 0 },
    ]);
  },
);

const NANO = "toDecimal128('0.000000001', 9)";
const TAMPERINGS: readonly [check: string, what: string, tamper: () => Promise<void>][] = [
  [
    "A3",
    "what a predecessor counted comes back as a conflict though it is equal",
    () =>
      alter(
        "raw_events",
        "'conflict' AS status",
        "stream = 2 AND status = 'duplicate' AND id IN (SELECT id FROM kept_raw_events WHERE stream = 1)",
      ),
  ],
  [
    "A3",
    "what a predecessor counted has another payload hash there",
    () => alter("raw_events", "payloadHash + 1 AS payloadHash", "stream = 1 AND status = 'counted' AND id = 'evt-4'"),
  ],
  [
    "A4",
    "a row of an inherited meter is larger",
    () => add("rollup", `sumQty + ${NANO} AS sumQty`, "stream = 2 AND meter = 'tokens'"),
  ],
  [
    "A4",
    "a backfilled row of a predecessor's usage is larger",
    () => add("rollup", `sumQty + ${NANO} AS sumQty`, "stream = 1 AND meter = 'late_tokens'"),
  ],
  [
    "A4",
    "a backfilled row of a predecessor's usage is lost",
    () => remove("rollup", "stream = 1 AND meter = 'late_tokens'"),
  ],
  [
    "A4",
    "a backfilled text of a predecessor's usage is lost",
    () => remove("rollup_uniq", `meter = 'late_users' AND windowStart < ${SECOND_AT / 1_000}`),
  ],
  [
    "A4",
    "a backfilled text of a predecessor's usage is invented",
    () => add("rollup_uniq", "valueHash + 1 AS valueHash", "meter = 'late_users'"),
  ],
  [
    "A4",
    "a text of an inherited meter is lost",
    () => remove("rollup_uniq", `meter = 'users' AND bookedStart >= ${SECOND_AT / 1_000}`),
  ],
  [
    "A4",
    "a text of an inherited meter is invented",
    () => add("rollup_uniq", "valueHash + 1 AS valueHash", `meter = 'users' AND bookedStart >= ${SECOND_AT / 1_000}`),
  ],
  [
    "A4",
    "a counted row of a predecessor is lost",
    () => remove("raw_events", "stream = 1 AND status = 'counted' AND id = 'evt-2'"),
  ],
];

test.each(TAMPERINGS)("G3 %s finds that %s", { timeout: HOOK_TIMEOUT_MS }, async (check, _what, tamper) => {
  await tamper();
  const { checks } = await second.audit();
  expect(checks.filter(({ differences }) => differences > 0).map((each) => each.check)).toEqual([check]);
});
