/** Two faults never act on one victim at once; on different ones they overlap. */
export class VictimLocks {
  readonly #tails = new Map<string, Promise<unknown>>();

  /** Waits for every victim, in the order of asking, and lets them go when `use` has ended. */
  async hold<Result>(victims: readonly string[], use: () => Promise<Result>): Promise<Result> {
    // All tails are replaced in one turn, so that two holders of two victims cannot wait for each other.
    const before = victims.map((victim) => this.#tails.get(victim) ?? Promise.resolve());
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    for (const victim of victims) this.#tails.set(victim, released);
    await Promise.all(before);
    try {
      return await use();
    } finally {
      release();
    }
  }
}
