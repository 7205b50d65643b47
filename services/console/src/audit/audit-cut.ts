/** Where an audit of a live deployment looks: a prefix of every partition, taken once, before anything else is read. */
import type { AnalyticsStore, EventLog, StreamIdentity } from "@tallyhouse/domain";
import { z } from "zod";

/** What an audit must know of the deployment; the aggregator's own settings, never read from what it stored. */
export interface AuditedStream extends Pick<StreamIdentity, "streamId" | "partitionCount" | "bookingWindowSeconds"> {
  /** Streams that this one goes on from: what they counted is known, and their meters count on. */
  readonly predecessors: readonly { readonly streamId: number; readonly partitionCount: number }[];
  readonly horizonSeconds: number;
  readonly maxAgeSeconds: number;
  readonly maxAheadSeconds: number;
}

/** One partition's prefix. Offsets and counts are far below 2^53. */
export interface PartitionCut {
  readonly partition: number;
  /** Records below it are judged: every row of them was acknowledged before `progress` said so. */
  readonly nextOffset: number;
  /** The partition's log clock there, epoch milliseconds. */
  readonly clockAt: number;
  /** Usage events counted in the prefix, as `progress` says. */
  readonly counted: number;
  /** Whether no row of the partition can have expired. */
  readonly isKept: boolean;
}

/** A meter version as its `meter.activate` record says, with its place in each partition's prefix. */
export interface AuditedMeter {
  readonly mode: string;
  readonly meter: string;
  readonly version: number;
  readonly rule: AuditedRule;
  readonly places: readonly MeterPlace[];
}

/** Where one partition activated a meter version, and where it ended it. */
export interface MeterPlace {
  readonly partition: number;
  readonly offset: number;
  /** Epoch milliseconds. */
  readonly bookedAt: number;
  /** Usage that occurs at or after it does not count; null for no end. Epoch milliseconds. */
  readonly untilAt: number | null;
  /** Whether the usage before `offset` is said to be folded. */
  readonly isBackfilled: boolean;
  /** Whether a predecessor activated it: its usage before is that stream's. */
  readonly isInherited: boolean;
}

/** The part of a rule that decides numbers. Read here from the stored body, not through the fold's own reader. */
const RuleSchema = z.object({
  eventType: z.string(),
  aggregation: z.string(),
  value: z.string().optional(),
  where: z.array(
    z.object({
      path: z.string(),
      equals: z.string().optional(),
      in: z.array(z.string()).optional(),
      exists: z.boolean().optional(),
    }),
  ),
  dimensions: z.record(z.string(), z.string()),
  from: z.string(),
});
export type AuditedRule = Readonly<z.infer<typeof RuleSchema>>;
const ActivateSchema = z.object({ mode: z.string(), meter: z.string(), version: z.int(), rule: RuleSchema });
const EndSchema = z.object({ mode: z.string(), meter: z.string(), version: z.int(), until: z.string() });

/** The prefix an audit judges. */
export interface AuditCut {
  readonly stream: AuditedStream;
  readonly partitions: readonly PartitionCut[];
  readonly meters: readonly AuditedMeter[];
  /** Rows booked, and usage windows begun, at or after it have not expired. A start of a UTC day, epoch seconds. */
  readonly keptFrom: number;
  /** The last that a predecessor counted or was told is booked by then, epoch seconds; 0 without predecessors. */
  readonly inheritedUntil: number;
}

/** raw_events keep 400 days; two days of margin for a day that is dropped while the audit runs. */
const KEPT_DAYS = 398;

/**
 * Reads `progress` first, then the meters below it. Rows that are written later are above the cut, or are keyed so that a check can
 * leave them out; nothing that is written while the audit runs can look like a fault.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function takeCut(analytics: AnalyticsStore, stream: AuditedStream): Promise<AuditCut> {
  const params = { stream: stream.streamId };
  const progress = await analytics.select<Record<"partition" | "next" | "clock" | "counted", string>>(
    `SELECT toString(logPartition) AS partition, toString(nextOffset) AS next,
       toString(toUnixTimestamp64Milli(logClock)) AS clock, toString(counted) AS counted
     FROM progress FINAL WHERE stream = {stream:UInt16} ORDER BY logPartition`,
    params,
  );
  const backfills = await analytics.select<Record<"partition" | "name", string>>(
    `SELECT DISTINCT toString(logPartition) AS partition, concat(mode, '/', meter, '/', toString(meterVersion)) AS name
     FROM backfills WHERE stream = {stream:UInt16}`,
    params,
  );
  const controls = await analytics.select<ControlRow>(
    `SELECT stream, toString(logPartition) AS partition, toString(logOffset) AS offset,
       toString(toUnixTimestamp64Milli(bookedAt)) AS bookedAt, kind, body
     FROM control_records FINAL
     WHERE stream IN {streams:Array(UInt16)} AND kind IN ('meter.activate', 'meter.end')
     ORDER BY logPartition, logOffset`,
    { streams: [stream.streamId, ...stream.predecessors.map(({ streamId }) => streamId)] },
  );
  const [kept] = await analytics.select<Record<"keptFrom", string>>(
    `SELECT toString(toUnixTimestamp(toStartOfDay(now('UTC') - INTERVAL ${KEPT_DAYS} DAY))) AS keptFrom`,
  );
  const keptFrom = Number(kept?.keptFrom ?? 0);
  const oldest = new Map<number, number>();
  const own = controls.filter((row) => row.stream === stream.streamId);
  for (const { partition, bookedAt } of [...own].reverse()) oldest.set(Number(partition), Number(bookedAt));
  const partitions = progress.map((row) => ({
    partition: Number(row.partition),
    nextOffset: Number(row.next),
    clockAt: Number(row.clock),
    counted: Number(row.counted),
    // control_records never expire: the first of them tells how old the partition is.
    isKept: (oldest.get(Number(row.partition)) ?? 0) >= keptFrom * 1_000,
  }));
  const below = new Map(partitions.map(({ partition, nextOffset }) => [partition, nextOffset]));
  return {
    stream,
    partitions,
    keptFrom,
    inheritedUntil: await readInheritedUntil(analytics, stream),
    meters: metersOf(
      stream.streamId,
      [
        ...stream.predecessors.flatMap((before) => inheritedOf(controls, before, partitions)),
        ...own.filter(({ partition, offset }) => Number(offset) < (below.get(Number(partition)) ?? 0)),
      ],
      new Set(backfills.map(({ partition, name }) => `${partition} ${name}`)),
    ),
  };
}

async function readInheritedUntil(analytics: AnalyticsStore, { predecessors }: AuditedStream): Promise<number> {
  if (predecessors.length === 0) return 0;
  const [row] = await analytics.select<Record<"until", string>>(
    `SELECT toString(max(toUnixTimestamp(bookedAt))) AS until
     FROM (SELECT max(bookedAt) AS bookedAt FROM raw_events WHERE stream IN {streams:Array(UInt16)} AND status = 'counted'
       UNION ALL SELECT max(bookedAt) FROM control_records WHERE stream IN {streams:Array(UInt16)})`,
    { streams: predecessors.map(({ streamId }) => streamId) },
  );
  return Number(row?.until ?? 0);
}

type ControlRow = Record<"partition" | "offset" | "bookedAt" | "kind" | "body", string> & { readonly stream: number };

/** A predecessor's meters as if they stood before the first record of the partitions that go on from its own. */
function inheritedOf(
  controls: readonly ControlRow[],
  before: { readonly streamId: number; readonly partitionCount: number },
  partitions: readonly PartitionCut[],
): ControlRow[] {
  return partitions.flatMap(({ partition }) =>
    controls
      .filter((row) => row.stream === before.streamId && Number(row.partition) === partition % before.partitionCount)
      .map((row) => ({ ...row, partition: String(partition), offset: "0" })),
  );
}

/** One entry per meter version; in a partition the first activation and the earliest end hold. */
function metersOf(streamId: number, controls: readonly ControlRow[], backfilled: ReadonlySet<string>): AuditedMeter[] {
  const found = new Map<string, { meter: Omit<AuditedMeter, "places">; places: Map<string, MeterPlace> }>();
  for (const row of controls) {
    if (row.kind !== "meter.activate") continue;
    const meter = ActivateSchema.parse(JSON.parse(row.body));
    const name = nameOf(meter);
    const entry = found.get(name) ?? { meter, places: new Map<string, MeterPlace>() };
    found.set(name, entry);
    if (entry.places.has(row.partition)) continue;
    entry.places.set(row.partition, {
      partition: Number(row.partition),
      offset: Number(row.offset),
      bookedAt: Number(row.bookedAt),
      untilAt: null,
      isBackfilled: backfilled.has(`${row.partition} ${name}`),
      isInherited: row.stream !== streamId,
    });
  }
  for (const row of controls) {
    if (row.kind !== "meter.end") continue;
    const end = EndSchema.parse(JSON.parse(row.body));
    const places = found.get(nameOf(end))?.places;
    const place = places?.get(row.partition);
    if (places === undefined || place === undefined) continue;
    const untilAt = Math.min(place.untilAt ?? Number.POSITIVE_INFINITY, instantOf(end.until));
    places.set(row.partition, { ...place, untilAt });
  }
  return [...found.values()].map(({ meter, places }) => ({ ...meter, places: [...places.values()] }));
}

function nameOf({ mode, meter, version }: { mode: string; meter: string; version: number }): string {
  return `${mode}/${meter}/${version}`;
}

/** Epoch milliseconds of an instant that the fold accepted: RFC 3339, finer digits cut. */
export function instantOf(text: string): number {
  return Date.parse(text.toUpperCase().replace(/(\.\d{3})\d+/, "$1"));
}

/** Where the log ends, read after what is compared with it: the log only grows. */
export async function readLogEnds(log: Pick<EventLog, "bounds" | "partitionCount">): Promise<number[]> {
  return Promise.all(
    Array.from({ length: log.partitionCount }, async (_, partition) => (await log.bounds(partition)).endOffset),
  );
}
