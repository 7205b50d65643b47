interface Timer {
  readonly dueAt: number;
  readonly run: () => void;
}

/**
 * The time of one schedule. While installed it stands in for the timers and the clock of the process, so that waits of the product
 * last no real time and end in an order that the schedule chooses.
 */
export class VirtualTime {
  #nowAt: number;
  readonly #timers = new Set<Timer>();

  constructor(startAt: number) {
    this.#nowAt = startAt;
  }

  now(): number {
    return this.#nowAt;
  }

  /** Takes the place of the process's timers until the returned function is called. */
  install(): () => void {
    const { setTimeout, clearTimeout } = globalThis;
    const realNow = Object.getOwnPropertyDescriptor(Date, "now");
    const add = (run: () => void, delayMs = 0): Timer => {
      // Whole milliseconds, as clocks have them, whatever share of a delay was drawn.
      const timer = { dueAt: this.#nowAt + Math.max(0, Math.ceil(delayMs)), run };
      this.#timers.add(timer);
      return timer;
    };
    Object.assign(globalThis, { setTimeout: add, clearTimeout: (timer: Timer) => this.#timers.delete(timer) });
    Object.defineProperty(Date, "now", { value: () => this.#nowAt, configurable: true, writable: true });
    return () => {
      Object.assign(globalThis, { setTimeout, clearTimeout });
      if (realNow !== undefined) Object.defineProperty(Date, "now", realNow);
    };
  }

  /** When the next timer is due; null when none is set. */
  nextTimerAt(): number | null {
    let nextAt: number | null = null;
    for (const { dueAt } of this.#timers) nextAt = Math.min(nextAt ?? dueAt, dueAt);
    return nextAt;
  }

  /** Moves the time and runs what has become due, in order; what that sets anew waits for the next move. */
  advanceTo(at: number): void {
    this.#nowAt = Math.max(this.#nowAt, at);
    const due = [...this.#timers].filter(({ dueAt }) => dueAt <= this.#nowAt).toSorted((a, b) => a.dueAt - b.dueAt);
    for (const timer of due) if (this.#timers.delete(timer)) timer.run();
  }
}

const nextTurn = setImmediate;

/** Resolves when everything that waits for no timer and no port has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => nextTurn(resolve));
}
