/** The emulator's only source of time. */
export interface Clock {
  /** Epoch milliseconds, UTC. */
  now(): number;
}

/** The real time of the machine. */
export const systemClock: Clock = {
  // oxlint-disable-next-line no-restricted-properties -- the emulator imports no workspace, so its one real clock stands here
  now: () => Date.now(),
};
