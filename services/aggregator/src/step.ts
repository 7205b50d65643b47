/** The fold's one step: pure, synchronous, in offset order. It sees the record, the task and constants of the stream. */
import {
  decodeUsageRecord,
  encodeUsageEvent,
  isControl,
  type JsonObject,
  type LogEntry,
  type LogRecord,
  partitionOfEvent,
  RECORD_BYTES_MAX,
  recordKeyOf,
  type UsageEvent,
  usageRecordBytes,
} from "@tallyhouse/domain";
import { count, measure } from "./count.ts";
import { type Candidate, type FoldContext, isTooEarly } from "./fold-context.ts";
import { type Fate, invalidPayload, pushInvalid, pushRaw, pushRawWithoutEvent, valueText } from "./raw-rows.ts";
import { stepControl, STREAM_CLOSED } from "./step-control.ts";
import type { Task } from "./task.ts";

/** A row's arrays and short texts, beside the record's value. */
const ROW_OVERHEAD_BYTES = 512;

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
  else if (task.isClosed) pushInvalid(task, entry, { context, reason: STREAM_CLOSED });
  else stepUsage(task, entry, context);
  task.buffer.sizeBytes += ROW_OVERHEAD_BYTES + (entry.value?.length ?? 0);
  task.lastEntry = entry;
  task.nextOffset = entry.offset + 1;
}

function stepUsage(task: Task, entry: LogEntry, context: FoldContext): void {
  const reading = decodeUsageRecord(entry);
  if (reading.kind === "rejected") {
    pushInvalid(task, entry, { context, reason: reading.rejection.code });
    return;
  }
  const { event, extensions } = reading;
  const digests = context.digest(event);
  const fate = fateOf(task, { entry, event, digests, context });
  if (fate.status === "redirected") task.buffer.redirects.push(redirectOf(entry, { event, extensions, context }));
  pushRaw(task, entry, { context, event, digests, fate });
}

/** Decides, and counts when that is the decision. First match returns. */
function fateOf(task: Task, candidate: Candidate): Fate {
  const { entry, event, digests, context } = candidate;
  if (partitionOfEvent(event, context.stream.partitionCount) !== task.partition)
    return { status: "redirected", reason: "", payload: valueText(entry) };
  const bookedSeconds = Math.floor(task.clockAt / 1_000);
  const known = task.index.find(digests, bookedSeconds);
  if (known !== null) {
    const status = known === digests.payloadCheck ? "duplicate" : "conflict";
    return { status, reason: "", payload: JSON.stringify(event.data) };
  }
  const occurredAt = event.occurredAt ?? entry.receivedAt;
  const ageSeconds = bookedSeconds - Math.floor(occurredAt / 1_000);
  if (ageSeconds > context.maxAgeSeconds) return { status: "too_late", reason: "", payload: valueText(entry) };
  if (isTooEarly(occurredAt, task.clockAt, context))
    return { status: "too_early", reason: "", payload: valueText(entry) };
  const measured = measure(task, candidate);
  if (measured.unreadable !== null)
    return { status: "invalid", reason: `METER_VALUE_INVALID:${measured.unreadable}`, payload: invalidPayload(entry) };
  count(task, candidate, measured);
  return { status: "counted", reason: "", payload: JSON.stringify(event.data) };
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
