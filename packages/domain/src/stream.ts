/** One incarnation of the topic. Everything here is constant for its life; a change is a new stream. */
export interface StreamIdentity {
  /** UInt16, a part of every stored key. */
  readonly streamId: number;
  readonly partitionCount: number;
  /** Length of a booking window: a divisor of 900; 900 in production, 5 in demos and end-to-end tests. */
  readonly bookingWindowSeconds: number;
  /** 16 secret bytes that key every identity hash. */
  readonly hashSeed: Buffer;
}
