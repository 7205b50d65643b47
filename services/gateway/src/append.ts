/** Appending to the log, within a time the caller can wait. */
import { type EventLog, type LogRecord, TallyhouseError } from "@tallyhouse/domain";

export type AppendOutcome =
  | { readonly kind: "durable" }
  /** Any part of the records may or may not be in the log. */
  | { readonly kind: "unknown"; readonly code: "LOG_UNAVAILABLE" | "LOG_FULL"; readonly cause: unknown };

/**
 * Appends all records, and answers at the latest after `timeoutMs`.
 * @returns `outcome`, which rejects with whatever else the log throws (a bug), and `settled`, which resolves when the log itself
 *   has answered: until then it works on the records. A bug that shows after the time is up goes to `onLateBug`.
 */
export function appendWithin(input: {
  log: EventLog;
  records: readonly LogRecord[];
  timeoutMs: number;
  onLateBug: (error: unknown) => void;
}): { readonly outcome: Promise<AppendOutcome>; readonly settled: Promise<void> } {
  const appended = input.log.append(input.records).then((): AppendOutcome => ({ kind: "durable" }), outcomeOf);
  let timer: NodeJS.Timeout | undefined;
  let isGivenUp = false;
  const late = new Promise<AppendOutcome>((resolve) => {
    timer = setTimeout(() => {
      isGivenUp = true;
      const cause = new Error(`the log did not answer within ${input.timeoutMs} ms`);
      resolve({ kind: "unknown", code: "LOG_UNAVAILABLE", cause });
    }, input.timeoutMs);
  });
  const settled = appended.then(
    () => clearTimeout(timer),
    (error: unknown) => {
      clearTimeout(timer);
      if (isGivenUp) input.onLateBug(error);
    },
  );
  return { outcome: Promise.race([appended, late]), settled };
}

function outcomeOf(error: unknown): AppendOutcome {
  if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
  return { kind: "unknown", code: error.code === "LOG_FULL" ? "LOG_FULL" : "LOG_UNAVAILABLE", cause: error };
}
