/** A stream that goes on from others: what they counted is known, their meters count on, and a new meter's backfill reads them. */
import { encodeUsageEvent, partitionOfEvent, type UsageEvent } from "@tallyhouse/domain";
import { meterVersion, until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  activate,
  controlOf,
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
const HOOK_TIMEOUT_MS = 240_000;
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
  await foldWithBackfills();
}, HOOK_TIMEOUT_MS);
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
    timeoutMs: 60_000,
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
