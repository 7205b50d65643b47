/** Bounded work in flight: what has been let in holds its share until all of it has ended. */

/** A share of the budget. It is given back when the answer is over and every held promise has settled. */
export interface Share {
  /** Keeps the share until this settles too: an append may outlive the answer that gave up on it. */
  holdUntil(work: Promise<unknown>): void;
  /** Gives back what turned out not to be needed; never takes more. */
  shrinkTo(bytes: number): void;
  /** The answer is over, or nobody waits for it any more. Safe to repeat. */
  answered(): void;
}

export interface Budget {
  /** Null when the bytes or one more request do not fit; nothing is held then. */
  enter(bytes: number): Share | null;
  bytesHeld(): number;
}

/** Makes a budget of so many requests and bytes. */
export function createBudget(limits: { requestsMax: number; bytesMax: number }): Budget {
  let requests = 0;
  let bytesHeld = 0;
  return {
    bytesHeld: () => bytesHeld,
    enter(bytesAsked) {
      let bytes = bytesAsked;
      if (requests >= limits.requestsMax || bytesHeld + bytes > limits.bytesMax) return null;
      requests += 1;
      bytesHeld += bytes;
      let holders = 1;
      let isAnswered = false;
      const release = (): void => {
        holders -= 1;
        if (holders > 0) return;
        requests -= 1;
        bytesHeld -= bytes;
      };
      return {
        holdUntil(work) {
          holders += 1;
          work.then(release, release);
        },
        shrinkTo(bytesNeeded) {
          if (holders === 0 || bytesNeeded >= bytes) return;
          bytesHeld -= bytes - bytesNeeded;
          bytes = bytesNeeded;
        },
        answered() {
          if (isAnswered) return;
          isAnswered = true;
          release();
        },
      };
    },
  };
}
