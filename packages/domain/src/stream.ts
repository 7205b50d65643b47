import { DAY_MS } from "./time.ts";

/**
 * Usage booked longer before a meter's activation is not backfilled. Raw usage events live 400 days: with 10 days to spare, every
 * repetition of a backfill within them finds the same ones, whatever expires meanwhile, and so counts the same.
 */
export const BACKFILL_SPAN_MS = 390 * DAY_MS;

/** One incarnation of the topic. Everything here is constant for its life; a change is a new stream. */
export interface StreamIdentity {
  /** UInt16, a part of every stored key. */
  readonly streamId: number;
  readonly partitionCount: number;
  /** Length of a booking window: a divisor of 900; 900 in production, 5 in demos and end-to-end tests. */
  readonly bookingWindowSeconds: number;
  /** 16 secret bytes that key every identity hash. */
  readonly hashSeed: Buffer;
  /** Streams whose usage this one goes on from, oldest first; they had the same hash seed. Absent: none. */
  readonly predecessors?: readonly StreamPredecessor[];
}

/** An earlier stream: what it counted stays counted, returns as duplicate, and its meters count on. */
export interface StreamPredecessor {
  readonly streamId: number;
  /** A divisor of its successors' counts, so that an identity of partition k lived in partition k mod this. */
  readonly partitionCount: number;
  /** Whether its log was lost or truncated. Otherwise it ended with `stream.close` in every partition. */
  readonly isLost: boolean;
}
