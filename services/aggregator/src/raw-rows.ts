/** Rows of `raw_events`: every offset gets exactly one, whatever becomes of its record. */
import type { EventDigests, LogEntry, UsageEvent } from "@tallyhouse/domain";
import type { FoldContext } from "./fold-context.ts";
import type { RecordStatus } from "./tables.ts";
import type { Task } from "./task.ts";

/** What became of a decoded usage event; `reason` says more where the status does not say all. */
export interface Fate {
  readonly status: RecordStatus;
  readonly reason: string;
  readonly payload: string;
}

/** Bytes of an invalid record that its raw row keeps, as base64. */
const INVALID_BYTES_KEPT = 65_536;
const INSTANT_MAX = Date.UTC(2200, 0, 1);

/** The row of a record that holds a usage event, or that puts one in another's place. */
export function pushRaw(
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
export function pushRawWithoutEvent(
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

/** The row of a record that changes nothing and is no usage event that could be read. */
export function pushInvalid(task: Task, entry: LogEntry, input: { context: FoldContext; reason: string }): void {
  pushRawWithoutEvent(task, entry, { ...input, status: "invalid", payload: invalidPayload(entry) });
}

/** The stored text of a record that was decoded, hence is UTF-8. */
export function valueText(entry: LogEntry): string {
  return entry.value?.toString("utf8") ?? "";
}

/** Base64, because what could not be decoded may be no text at all. */
export function invalidPayload(entry: LogEntry): string {
  return entry.value?.subarray(0, INVALID_BYTES_KEPT).toString("base64") ?? "";
}

/** Instants outside 1970–2200 are stored as 1970; the payload keeps what was sent. */
function storableInstant(at: number): number {
  return at < 0 || at >= INSTANT_MAX ? 0 : at;
}
