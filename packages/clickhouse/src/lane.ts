import { assert, type ErrorAction, TallyhouseError } from "@tallyhouse/domain";

/** What a lane needs from an engine. Each call is one statement; errors are the engine's own. */
export interface Connection {
  select<Row>(sql: string, params: Readonly<Record<string, unknown>> | undefined): Promise<Row[]>;
  /** `body`: one block in the Native format. */
  insert(input: { table: string; columns: readonly string[]; body: Buffer }): Promise<void>;
  command(sql: string): Promise<void>;
  close(): Promise<void>;
}

/** What a lane of long answers needs. */
export interface Scanner {
  /** RowBinary, piece by piece; rejects with whatever `visit` rejects with, and leaves no statement running then. */
  scan(
    sql: string,
    params: Readonly<Record<string, unknown>>,
    visit: (bytes: Uint8Array) => Promise<void>,
  ): Promise<void>;
  close(): Promise<void>;
}

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
  readonly #drained = Promise.withResolvers<void>();
  #running = 0;
  #closed = false;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /**
   * Runs `statement` when it is its turn.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry) when it is closed or {@link STATEMENTS_WAITING_MAX} wait
   * already; nothing was run.
   */
  async run<Result>(statement: () => Promise<Result>): Promise<Result> {
    if (this.#closed) throw storeUnavailable("take a statement: it is closed");
    if (this.#running < this.#concurrency) this.#running += 1;
    else await this.#wait();
    try {
      return await statement();
    } finally {
      this.#handOver();
    }
  }

  /** Takes no more statements; resolves when all that were taken have ended. Safe to repeat. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#running > 0) await this.#drained.promise;
  }

  async #wait(): Promise<void> {
    if (this.#waiting.length >= STATEMENTS_WAITING_MAX)
      throw storeUnavailable(`take a statement: ${STATEMENTS_WAITING_MAX} are waiting`);
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** The place is handed over, not freed, so that a newcomer cannot overtake who waits. */
  #handOver(): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next();
      return;
    }
    this.#running -= 1;
    if (this.#closed && this.#running === 0) this.#drained.resolve();
  }
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Table and column names reach the SQL as they are, so they must be plain. */
export function assertIdentifiers(names: readonly string[]): void {
  for (const name of names) assert(IDENTIFIER.test(name), `not a plain identifier: ${JSON.stringify(name)}`);
}

/**
 * An outage, or a refusal, of the analytics store. The engine's text may hold row values, so it stays in `cause`. What must
 * halt is passed on as it is: trying it again would be wrong.
 */
export function storeUnavailable(what: string, cause?: unknown, action: ErrorAction = "retry"): TallyhouseError {
  if (cause instanceof TallyhouseError && cause.action === "halt") return cause;
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
