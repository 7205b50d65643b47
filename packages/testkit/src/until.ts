import { pause } from "@tallyhouse/runtime";

/** How often a condition is looked at. */
const POLL_MS = 20;

/**
 * Waits until the condition holds and returns what it returned (anything but undefined, null and false).
 * @throws {Error} naming the condition and the last error or value when the time is up.
 */
export async function until<Result>(
  condition: () => Promise<Result | undefined | null | false> | Result | undefined | null | false,
  options: { timeoutMs?: number; what?: string } = {},
): Promise<Result> {
  const { timeoutMs = 10_000, what = condition.toString() } = options;
  const endsAt = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const result = await condition();
      if (result !== undefined && result !== null && result !== false) return result;
      last = result;
    } catch (error) {
      last = error;
    }
    if (performance.now() > endsAt) {
      throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    }
    await pause(POLL_MS);
  }
}
