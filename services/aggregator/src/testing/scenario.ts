/** Builders shared by the aggregator's tests: a small stream, its records, and an aggregator on a model store. */
import {
  type ControlFact,
  type ControlKey,
  createDigester,
  encodeControl,
  encodeUsageEvent,
  type EventLog,
  type LogEntry,
  type LogRecord,
  type MeterVersion,
  partitionOfEvent,
  recordKeyOf,
  type StreamIdentity,
  type UsageEvent,
} from "@tallyhouse/domain";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { meterVersion, usageEvent } from "@tallyhouse/testkit";
import { Aggregator } from "../aggregator.ts";
import type { BackfillStore } from "../backfill-store.ts";
import { type AggregatorConfig, AggregatorConfigSchema } from "../config.ts";
import type { PredecessorStore } from "../predecessors.ts";
import type { ResultStore } from "../result-store.ts";
import type { FoldContext } from "../fold-context.ts";
import { createTask, type Task } from "../task.ts";
import { ModelBackfills, NO_BACKFILLS } from "./model-backfills.ts";
import { ModelStore } from "./model-store.ts";

export const HOUR_MS = 3_600_000;
/** A Friday noon: the instant around which the tests' records arrive. */
export const NOON = Date.UTC(2026, 10, 20, 12, 0, 0);
export const CONTROL_KEY: ControlKey = { name: "first", secret: Buffer.from("control secret of the tests") };

export const STREAM: StreamIdentity = {
  streamId: 7,
  partitionCount: 2,
  bookingWindowSeconds: 900,
  hashSeed: Buffer.from("0123456789abcdef"),
};

/** Configuration with defaults, except what a test says. */
export function config(overrides: Partial<AggregatorConfig> = {}): AggregatorConfig {
  return { ...AggregatorConfigSchema.parse({}), stream: STREAM, controlKeys: [CONTROL_KEY], ...overrides };
}

/** The constants of the fold, as the aggregator derives them from its configuration. */
export function foldContext(stream: StreamIdentity = STREAM): FoldContext {
  const { MAX_AGE_HOURS, MAX_AHEAD_SECONDS } = config();
  return {
    stream,
    digest: createDigester(stream.hashSeed),
    controlKeys: [CONTROL_KEY],
    maxAgeSeconds: MAX_AGE_HOURS * 3_600,
    maxAheadSeconds: MAX_AHEAD_SECONDS,
  };
}

/** A task at the start of a partition that counts with these meters. */
export function taskWith(meters: readonly MeterVersion[], partition = 0): Task {
  const stored = { partition, nextOffset: 0, logClockAt: 0, lastRecord: 0n, counted: 0 };
  const task = createTask(stored, config().DEDUPE_HORIZON_HOURS * 3_600);
  for (const meter of meters) task.meters.add(meter);
  return task;
}

/** The record of a usage event in the partition where it belongs, or in the one given. */
export function usageRecord(overrides: Partial<UsageEvent> = {}, partition?: number): LogRecord {
  const event = usageEvent({ occurredAt: NOON, ...overrides });
  return {
    partition: partition ?? partitionOfEvent(event, STREAM.partitionCount),
    key: recordKeyOf(event),
    value: encodeUsageEvent(event, {}),
    headers: {},
  };
}

export function controlRecord(fact: ControlFact, partition: number): LogRecord {
  return encodeControl({ fact, partition, key: CONTROL_KEY });
}

export function activation(version: MeterVersion = meterVersion()): ControlFact {
  return { kind: "meter.activate", ...version };
}

/** A record as the log delivers it. */
export function entryOf(record: LogRecord, place: { offset: number; receivedAt: number }): LogEntry {
  const { key, value, headers } = record;
  return { ...place, key, value, headers, marker: false };
}

/** Ids of usage events that belong to the partition. */
export function idsOf(partition: number, count: number, overrides: Partial<UsageEvent> = {}): string[] {
  const ids: string[] = [];
  for (let n = 0; ids.length < count; n += 1) {
    const id = `evt-${n}`;
    if (partitionOfEvent(usageEvent({ ...overrides, id }), STREAM.partitionCount) === partition) ids.push(id);
  }
  return ids;
}

/** A clock that stands still until it is moved. */
export class ManualClock {
  at = NOON;

  now(): number {
    return this.at;
  }
}

/** An aggregator on these two ports, silent and with its own metrics. */
export function aggregatorOn(
  ports: {
    log: EventLog;
    store: ResultStore;
    backfills?: BackfillStore;
    clock?: { now(): number };
    predecessors?: readonly PredecessorStore[];
  },
  overrides: Partial<AggregatorConfig> = {},
): Aggregator {
  return new Aggregator(config(overrides), {
    log: ports.log,
    store: ports.store,
    backfills: ports.backfills ?? (ports.store instanceof ModelStore ? new ModelBackfills(ports.store) : NO_BACKFILLS),
    predecessors: ports.predecessors ?? [],
    clock: ports.clock ?? new ManualClock(),
    random: () => 0,
    logger: createLogger({ level: "silent", name: "test" }),
    metrics: createMetrics(),
  });
}

/** Lets everything that waits for a promise run; 1,000 turns without the condition are a failure. */
export async function turnsUntil(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; !condition(); turn += 1) {
    if (turn === 1_000) throw new Error(`not after ${turn} turns: ${what}`);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}
