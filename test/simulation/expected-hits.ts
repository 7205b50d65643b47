/** Faults that a run of the aggregator's schedules must have met; one without a hit would be a hole that looks like a success. */
const WRITES = [
  "append",
  "backfilled",
  "insert control_records",
  "insert identities",
  "insert raw_events",
  "insert rollup",
  "insert rollup_uniq",
  "progress",
] as const;
const READS = [
  "bounds",
  "countIdentities",
  "readControls",
  "readIdentities",
  "readLastIdentity",
  "readPage",
  "readPending",
  "readProgress",
  "readRawTail",
  "readRollups",
  "readSlices",
] as const;
const STATUSES = ["conflict", "counted", "duplicate", "redirected", "too_early", "too_late"] as const;
const CONTROLS = ["meter.activate", "meter.end", "replace", "stream.close", "tick", "void", "marker"] as const;

/** Fewer schedules than this need not have met everything. */
export const SCHEDULES_MIN = 1_000;

const EXPECTED_HITS: readonly string[] = [
  ...WRITES.flatMap((write) => [
    ...["before", "half", "after"].map((moment) => `${write} fails ${moment} its effect`),
    ...["never", "whole", "half", "later", "half later"].map((fate) => `${write} of the dead lands ${fate}`),
    `${write} is sent twice`,
  ]),
  ...READS.flatMap((read) => ["before", "after"].map((moment) => `${read} fails ${moment} its effect`)),
  ...STATUSES.map((status) => `record: ${status}`),
  ...CONTROLS.map((kind) => `record: control ${kind}`),
  "record: counted replace",
  "record: invalid CONTROL_RECORD_INVALID",
  "record: invalid EVENT_NOT_AN_OBJECT",
  "record: invalid METER_VALUE_INVALID",
  "record: invalid STREAM_CLOSED",
  "a leader's clock is another one",
  "a process is expelled and goes on",
  "a process is killed",
  "a process sleeps",
  "a process stops",
  "a write lands late",
  "damage: gap",
  "damage: re-created",
  "damage: truncated",
  "retention deletes",
];

/** What never happened. */
export function missingHits(hits: Readonly<Record<string, number>>): string[] {
  return EXPECTED_HITS.filter((what) => hits[what] === undefined);
}
