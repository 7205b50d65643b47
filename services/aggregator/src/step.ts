/** The fold's one step: pure, synchronous, in offset order. It sees the record, the task and constants of the stream. */
import {
  type ControlKey,
  type createDigester,
  decodeControl,
  decodeUsageRecord,
  encodeUsageEvent,
  type EventDigests,
  isControl,
  type JsonObject,
  type LogEntry,
  type LogRecord,
  partitionOfEvent,
  RECORD_BYTES_MAX,
  recordKeyOf,
  type StreamIdentity,
  type UsageEvent,
  usageRecordBytes,
  windowStartOf,
} from "@tallyhouse/domain";
import type { Fingerprint } from "./dedupe-index.ts";
import type { RollupContribution } from "./rollup-book.ts";
import { bookedStartOf, type RecordStatus } from "./tables.ts";
import type { Task } from "./task.ts";

/** What every step of a stream shares; none of it may change while the stream lives. */
export interface FoldContext {
  readonly stream: StreamIdentity;
  readonly digest: ReturnType<typeof createDigester>;
  readonly controlKeys: readonly ControlKey[];
  readonly maxAgeSeconds: number;
  readonly maxAheadSeconds: number;
}

/** The fate of a decoded usage event; `reason` says more where the status does not say all. */
interface Fate {
  readonly status: RecordStatus;
  readonly reason: string;
  readonly payload: string;
}

/** Bytes of an invalid record that its raw row keeps, as base64. */
const INVALID_BYTES_KEPT = 65_536;
/** A row's arrays and short texts, beside the record's value. */
const ROW_OVERHEAD_BYTES = 512;
const INSTANT_MAX = Date.UTC(2200, 0, 1);

/**
 * Folds the record at the task's position and moves the position. Everything it stores is a function of the records so far:
 * no wall clock, no database, no setting that may change.
 *
 * Dedupe precedes the age tests, so that a late retry is called what it is; a metered value that cannot be read is found
 * before the index is touched, so that the sender may correct the usage event and send it again.
 */
export function step(task: Task, entry: LogEntry, context: FoldContext): void {
  task.clockAt = Math.max(task.clockAt, entry.receivedAt);
  if (entry.marker) pushRawWithoutEvent(task, entry, { context, status: "control", reason: "marker", payload: "" });
  else if (isControl(entry)) stepControl(task, entry, context);
  else stepUsage(task, entry, context);
  task.buffer.sizeBytes += ROW_OVERHEAD_BYTES + (entry.value?.length ?? 0);
  task.lastEntry = entry;
  task.nextOffset = entry.offset + 1;
}

function stepControl(task: Task, entry: LogEntry, context: FoldContext): void {
  const reading = decodeControl({ entry, partition: task.partition, keys: context.controlKeys });
  if (reading.kind === "invalid") {
    const payload = invalidPayload(entry);
    pushRawWithoutEvent(task, entry, { context, status: "invalid", reason: "CONTROL_RECORD_INVALID", payload });
    return;
  }
  const { fact } = reading;
  const payload = valueText(entry);
  pushRawWithoutEvent(task, entry, { context, status: "control", reason: fact.kind, payload });
  if (fact.kind !== "meter.activate") return;
  // From this offset on the meter counts. A repeated activation is a no-op and leaves no second row behind.
  if (!task.meters.add(fact)) return;
  const { streamId } = context.stream;
  task.buffer.controls.push([streamId, task.partition, entry.offset, task.clockAt, fact.kind, "", payload]);
}

function stepUsage(task: Task, entry: LogEntry, context: FoldContext): void {
  const reading = decodeUsageRecord(entry);
  if (reading.kind === "rejected") {
    const payload = invalidPayload(entry);
    pushRawWithoutEvent(task, entry, { context, status: "invalid", reason: reading.rejection.code, payload });
    return;
  }
  const { event, extensions } = reading;
  const digests = context.digest(event);
  const fate = fateOf(task, { entry, event, digests, context });
  if (fate.status === "redirected") task.buffer.redirects.push(redirectOf(entry, { event, extensions, context }));
  pushRaw(task, entry, { context, event, digests, fate });
}

interface Candidate {
  readonly entry: LogEntry;
  readonly event: UsageEvent;
  readonly digests: EventDigests;
  readonly context: FoldContext;
}

/** Decides, and counts when that is the decision. First match returns. */
function fateOf(task: Task, candidate: Candidate): Fate {
  const { entry, event, digests, context } = candidate;
  if (partitionOfEvent(event, context.stream.partitionCount) !== task.partition)
    return { status: "redirected", reason: "", payload: valueText(entry) };
  const bookedSeconds = Math.floor(task.clockAt / 1_000);
  const fingerprint = fingerprintOf(digests);
  const known = task.index.find(fingerprint, bookedSeconds);
  if (known !== null) {
    const status = known === digests.payloadCheck ? "duplicate" : "conflict";
    return { status, reason: "", payload: JSON.stringify(event.data) };
  }
  const occurredAt = event.occurredAt ?? entry.receivedAt;
  const ageSeconds = bookedSeconds - Math.floor(occurredAt / 1_000);
  if (ageSeconds > context.maxAgeSeconds) return { status: "too_late", reason: "", payload: valueText(entry) };
  if (-ageSeconds > context.maxAheadSeconds) return { status: "too_early", reason: "", payload: valueText(entry) };
  const measured = measure(task, candidate);
  if (measured.kind === "invalid")
    return { status: "invalid", reason: `METER_VALUE_INVALID:${measured.meter}`, payload: invalidPayload(entry) };
  task.index.put(fingerprint, bookedSeconds, digests.payloadCheck);
  task.counted += 1;
  task.buffer.identities.push([
    context.stream.streamId,
    task.partition,
    digests.fpHigh,
    digests.fpLow,
    entry.offset,
    bookedSeconds,
    digests.payloadCheck,
  ]);
  for (const contribution of measured.contributions) task.rollups.add(contribution);
  return { status: "counted", reason: "", payload: JSON.stringify(event.data) };
}

type Measured =
  | { readonly kind: "contributions"; readonly contributions: readonly RollupContribution[] }
  | { readonly kind: "invalid"; readonly meter: string };

/** What the usage event says to each active meter, all of them or none: nothing is added here. */
function measure(task: Task, { entry, event, context }: Candidate): Measured {
  const contributions: RollupContribution[] = [];
  const occurredAt = event.occurredAt ?? entry.receivedAt;
  for (const meter of task.meters.of(event.mode, event.type)) {
    if (occurredAt < meter.compiled.fromAt) continue;
    const contribution = meter.compiled.contributionOf(event);
    if (contribution.kind === "none") continue;
    if (contribution.kind === "invalid") return { kind: "invalid", meter: meter.compiled.version.meter };
    contributions.push({
      meter,
      customer: event.customer,
      dims: contribution.dims,
      quantity: contribution.quantity,
      occurredAt,
      windowStart: windowStartOf(occurredAt) / 1_000,
      bookedStart: bookedStartOf(task.clockAt, context.stream),
      offset: entry.offset,
    });
  }
  return { kind: "contributions", contributions };
}

/**
 * The copy for the partition where the identity belongs. An event without `time` gets the receivedAt of this record: a copy
 * sent again after a crash then has the same occurredAt, and a replay of months later is too late instead of counted twice.
 */
function redirectOf(
  entry: LogEntry,
  input: { event: UsageEvent; extensions: JsonObject; context: FoldContext },
): LogRecord {
  const { event, extensions, context } = input;
  const key = recordKeyOf(event);
  const partition = partitionOfEvent(event, context.stream.partitionCount);
  const asReceived = { partition, key, value: entry.value, headers: entry.headers };
  if (event.occurredAt !== null) return asReceived;
  const value = encodeUsageEvent({ ...event, occurredAt: entry.receivedAt, isStamped: true }, extensions);
  const stamped = { partition, key, value, headers: { "content-type": STRUCTURED_CONTENT_TYPE } };
  // Re-encoding can lengthen numbers such as 1e20; a copy too long to be read would be worse than one without time.
  return usageRecordBytes(stamped) > RECORD_BYTES_MAX ? asReceived : stamped;
}

const STRUCTURED_CONTENT_TYPE = Buffer.from("application/cloudevents+json; charset=UTF-8");

const wide = new BigUint64Array(1);
const halves = new Uint32Array(wide.buffer);

function fingerprintOf(digests: EventDigests): Fingerprint {
  wide[0] = digests.fpHigh;
  return { word0: halves[0] as number, word1: halves[1] as number, word2: digests.fpLow };
}

function pushRaw(
  task: Task,
  entry: LogEntry,
  input: { context: FoldContext; event: UsageEvent; digests: EventDigests; fate: Fate },
): void {
  const { context, event, digests, fate } = input;
  task.buffer.raw.push([
    context.stream.streamId,
    task.partition,
    entry.offset,
    event.mode,
    event.customer,
    event.source,
    event.id,
    event.type,
    storableInstant(event.occurredAt ?? entry.receivedAt),
    storableInstant(entry.receivedAt),
    task.clockAt,
    storableInstant(event.decidedAt ?? 0),
    fate.status,
    fate.reason,
    digests.payloadHash,
    fate.payload,
  ]);
}

/** The row of a record that holds no usage event: mode `none`, no identity, occurredAt 1970. */
function pushRawWithoutEvent(
  task: Task,
  entry: LogEntry,
  input: { context: FoldContext; status: RecordStatus; reason: string; payload: string },
): void {
  const { context, status, reason, payload } = input;
  const { streamId } = context.stream;
  const receivedAt = storableInstant(entry.receivedAt);
  task.buffer.raw.push([
    streamId,
    task.partition,
    entry.offset,
    "none",
    "",
    "",
    "",
    "",
    0,
    receivedAt,
    task.clockAt,
    0,
    status,
    reason,
    0,
    payload,
  ]);
}

/** The stored text of a record that was decoded, hence is UTF-8. */
function valueText(entry: LogEntry): string {
  return entry.value?.toString("utf8") ?? "";
}

/** Base64, because what could not be decoded may be no text at all. */
function invalidPayload(entry: LogEntry): string {
  return entry.value?.subarray(0, INVALID_BYTES_KEPT).toString("base64") ?? "";
}

/** Instants outside 1970–2200 are stored as 1970; the payload keeps what was sent. */
function storableInstant(at: number): number {
  return at < 0 || at >= INSTANT_MAX ? 0 : at;
}
