import { type AnalyticsValue, assert, type ErrorAction, TallyhouseError } from "@tallyhouse/domain";

/** What a lane needs from an engine. Each call is one statement; errors are the engine's own. */
export interface Connection {
  select<Row>(sql: string, params: Readonly<Record<string, unknown>> | undefined): Promise<Row[]>;
  insert(input: { table: string; columns: readonly string[]; body: Buffer }): Promise<void>;
  command(sql: string): Promise<void>;
  close(): Promise<void>;
}

/** A row of values in the order of the columns. */
export type Row = readonly AnalyticsValue[];

/** Statements that may wait for one lane. Each caller awaits its own, so this is some hundred callers at once. */
export const STATEMENTS_WAITING_MAX = 1_000;

/**
 * Lets at most `concurrency` statements run at a time, in order of arrival.
 *
 * chDB runs the statements of one connection one after another anyway, but each waiting one would block a thread of
 * Node's pool of four, and with it every file operation of the process.
 */
export class Lane {
  readonly #concurrency: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /**
   * Runs `statement` when it is its turn.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry) when {@link STATEMENTS_WAITING_MAX} wait already; nothing was run.
   */
  async run<Result>(statement: () => Promise<Result>): Promise<Result> {
    if (this.#running >= this.#concurrency) {
      if (this.#waiting.length >= STATEMENTS_WAITING_MAX)
        throw storeUnavailable(`take a statement: ${STATEMENTS_WAITING_MAX} are waiting`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      return await statement();
    } finally {
      // The place is handed over, not freed, so that a newcomer cannot overtake who waits.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  /** Resolves when everything that was asked for has ended. */
  async drained(): Promise<void> {
    while (this.#running > 0) await this.run(async () => {});
  }
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Table and column names reach the SQL as they are, so they must be plain. */
export function assertIdentifiers(names: readonly string[]): void {
  for (const name of names) assert(IDENTIFIER.test(name), `not a plain identifier: ${JSON.stringify(name)}`);
}

/** An outage, or a refusal, of the analytics store. The engine's text may hold row values, so it stays in `cause`. */
export function storeUnavailable(what: string, cause?: unknown, action: ErrorAction = "retry"): TallyhouseError {
  const code = cause === undefined ? "" : engineCodeOf(cause);
  return new TallyhouseError({
    code: "STORE_UNAVAILABLE",
    action,
    message: `the analytics store could not ${what}${code}`,
    cause,
  });
}

function engineCodeOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  const text = /Code: (\d+)\b/.exec(error.message)?.[1];
  const { code, type } = error as Error & { code?: unknown; type?: unknown };
  const parts = [text ?? code, type].filter((part) => typeof part === "string");
  return parts.length === 0 ? "" : ` (${parts.join(" ")})`;
}
