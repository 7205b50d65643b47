import type {
  ControlKey,
  createDigester,
  EventDigests,
  LogEntry,
  StreamIdentity,
  UsageEvent,
} from "@tallyhouse/domain";

/** What every step of a stream shares; none of it may change while the stream lives. */
export interface FoldContext {
  readonly stream: StreamIdentity;
  readonly digest: ReturnType<typeof createDigester>;
  readonly controlKeys: readonly ControlKey[];
  readonly maxAgeSeconds: number;
  readonly maxAheadSeconds: number;
}

/** A usage event on its way through the fold, with the record that carries it. */
export interface Candidate {
  readonly entry: LogEntry;
  readonly event: UsageEvent;
  readonly digests: EventDigests;
  readonly context: FoldContext;
}

/**
 * Whether usage of this instant is too far ahead of the log clock to be counted. In whole seconds, so that the instants that are
 * not too early are those below a whole second: what `meter.end` rests on.
 */
export function isTooEarly(occurredAt: number, clockAt: number, context: FoldContext): boolean {
  return Math.floor(occurredAt / 1_000) - Math.floor(clockAt / 1_000) > context.maxAheadSeconds;
}
