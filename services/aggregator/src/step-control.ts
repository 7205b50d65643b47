/** Control records in the fold: what each fact does at its offset. All of a record takes effect, or nothing of it. */
import {
  assert,
  type ControlFact,
  decodeControl,
  type LogEntry,
  parseInstant,
  partitionOfEvent,
  readCorrectedEvent,
  unreachable,
  type UsageEvent,
} from "@tallyhouse/domain";
import { count, type Measured, measure, takeBack } from "./count.ts";
import { type Candidate, type FoldContext, isTooEarly } from "./fold-context.ts";
import { pushInvalid, pushRaw, pushRawWithoutEvent, valueText } from "./raw-rows.ts";
import type { Task } from "./task.ts";

/** Reason of every record behind a `stream.close`, which is the last one that counts. */
export const STREAM_CLOSED = "STREAM_CLOSED";

/**
 * What a verified fact does here. `none`: it was done before, or there is nothing to do; the record gets its raw row and leaves no
 * second trace. `done`: it took effect and must be found again by an open, in `control_records`.
 */
type Effect =
  | { readonly kind: "invalid" }
  | { readonly kind: "none" }
  | { readonly kind: "done"; readonly target: string; readonly counted: Candidate | null };

const INVALID: Effect = { kind: "invalid" };
const NONE: Effect = { kind: "none" };
const DONE: Effect = { kind: "done", target: "", counted: null };

interface ControlInput<Kind extends ControlFact["kind"]> {
  readonly entry: LogEntry;
  readonly fact: Extract<ControlFact, { kind: Kind }>;
  readonly context: FoldContext;
}

/** Folds one record that claims to be a control record. */
export function stepControl(task: Task, entry: LogEntry, context: FoldContext): void {
  const reading = decodeControl({ entry, partition: task.partition, keys: context.controlKeys });
  const isTick = reading.kind === "control" && reading.fact.kind === "tick";
  if (task.isClosed && !isTick) {
    pushInvalid(task, entry, { context, reason: STREAM_CLOSED });
    return;
  }
  const effect = reading.kind === "invalid" ? INVALID : apply(task, { entry, fact: reading.fact, context });
  if (reading.kind === "invalid" || effect.kind === "invalid") {
    pushInvalid(task, entry, { context, reason: "CONTROL_RECORD_INVALID" });
    return;
  }
  const { kind } = reading.fact;
  const payload = valueText(entry);
  if (effect.kind === "none" || effect.counted === null) {
    pushRawWithoutEvent(task, entry, { context, status: "control", reason: kind, payload });
  } else {
    const fate = { status: "counted", reason: kind, payload: JSON.stringify(effect.counted.event.data) } as const;
    pushRaw(task, entry, { ...effect.counted, fate });
  }
  if (effect.kind === "none") return;
  const { streamId } = context.stream;
  task.buffer.controls.push([streamId, task.partition, entry.offset, task.clockAt, kind, effect.target, payload]);
}

function apply(task: Task, { entry, fact, context }: ControlInput<ControlFact["kind"]>): Effect {
  switch (fact.kind) {
    case "tick":
      return NONE;
    case "meter.activate":
      // From this offset on the meter counts. A repeated activation is a no-op and leaves no second row behind.
      return task.meters.add(fact) ? DONE : NONE;
    case "meter.end":
      return endMeter(task, { entry, fact, context });
    case "void":
      return voidEvent(task, { entry, fact, context });
    case "replace":
      return replaceEvent(task, { entry, fact, context });
    case "stream.close":
      if (!isOfThisStream(fact, context)) return INVALID;
      task.isClosed = true;
      return DONE;
    default:
      return unreachable(fact);
  }
}

/**
 * Valid only where usage at `until` would still be too early: then nothing at or after it was counted, and the end takes nothing
 * back. Of several valid ends the earliest holds.
 */
function endMeter(task: Task, { fact, context }: ControlInput<"meter.end">): Effect {
  const untilAt = parseInstant(fact.until);
  assert(untilAt !== null, "the end's instant was validated when it was decoded");
  if (!isTooEarly(untilAt, task.clockAt, context)) return INVALID;
  switch (task.meters.end(fact, untilAt)) {
    case "unknown":
      return INVALID;
    case "ended":
      return DONE;
    case "ends earlier":
      return NONE;
  }
}

function voidEvent(task: Task, { entry, fact, context }: ControlInput<"void">): Effect {
  const original = correctedEvent(fact.event);
  if (!isTarget(task, { entry, fact, context }, original)) return INVALID;
  if (task.voids.has(fact.offset)) return NONE;
  takeBack(task, fact.offset, measure(task, { entry, event: original, context }));
  return { kind: "done", target: String(fact.offset), counted: null };
}

/** A void and a counted usage event in its place, in one record: a crash cannot leave one without the other. */
function replaceEvent(task: Task, { entry, fact, context }: ControlInput<"replace">): Effect {
  const original = correctedEvent(fact.event);
  if (!isTarget(task, { entry, fact, context }, original)) return INVALID;
  // Before the identity: the replacement of a record that is repeated is known.
  if (task.voids.has(fact.offset)) return NONE;
  const event = correctedEvent(fact.replacement);
  const counted: Candidate = { entry, event, digests: context.digest(event), context };
  const measured = measureReplacement(task, counted);
  if (measured === null) return INVALID;
  takeBack(task, fact.offset, measure(task, { entry, event: original, context }));
  count(task, counted, measured);
  return { kind: "done", target: String(fact.offset), counted };
}

/** What the replacement contributes; null when it may not be counted here. Too late is waived: corrections come late. */
function measureReplacement(task: Task, candidate: Candidate): Measured | null {
  const { event, digests, context } = candidate;
  if (partitionOfEvent(event, context.stream.partitionCount) !== task.partition) return null;
  if (task.index.find(digests, Math.floor(task.clockAt / 1_000)) !== null) return null;
  if (!isCountable(event, task, context)) return null;
  const measured = measure(task, candidate);
  return measured.unreadable === null ? measured : null;
}

/**
 * Whether the correction can mean a counted usage event: one of an earlier offset, of an instant that could be counted. That it was
 * counted there, and as it says, is the sender's promise: the fold looks into no store.
 */
function isTarget(task: Task, { entry, fact, context }: ControlInput<"void" | "replace">, event: UsageEvent): boolean {
  return isOfThisStream(fact, context) && fact.offset < entry.offset && isCountable(event, task, context);
}

/** A log that is read again holds its old stream's facts about offsets; what they did there would be done a second time here. */
function isOfThisStream(fact: { readonly stream?: number | undefined }, { stream }: FoldContext): boolean {
  if (fact.stream !== undefined) return fact.stream === stream.streamId;
  return (stream.predecessors ?? []).length === 0;
}

/** Before 1970 there is no usage window, and beyond MAX_AHEAD nothing was counted: no key could hold it. */
function isCountable(event: UsageEvent, task: Task, context: FoldContext): boolean {
  const { occurredAt } = event;
  return occurredAt !== null && occurredAt >= 0 && !isTooEarly(occurredAt, task.clockAt, context);
}

function correctedEvent(text: string): UsageEvent {
  const event = readCorrectedEvent(text);
  assert(event !== null, "a correction's usage events were validated when it was decoded");
  return event;
}
