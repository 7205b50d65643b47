import { randomInt } from "node:crypto";
import { assert, type ControlStore, type SqlRunner } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { type CustomTypesConfig, Pool, type PoolClient, types } from "pg";
import { isConflict, isOutage, mapOutages, storeUnavailable } from "./errors.ts";
import type { OpenedControlStore } from "./opened-control-store.ts";
import { TransactionGuard } from "./transaction-guard.ts";

/** A PostgreSQL server, and the bounds of our use of it. */
export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`; `?sslmode=verify-full` asks for TLS. */
  readonly url: string;
  /** Connections at most. Default 10: eight processes of ours fit into PostgreSQL's own default of 100. */
  readonly poolMax?: number;
  /** Shown in `pg_stat_activity`. Default `tallyhouse`. */
  readonly applicationName?: string;
  /** Until a connection is there, be it a new one or one that becomes free. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** Until the server ends a statement. Default 30,000. */
  readonly statementTimeoutMs?: number;
  /** Until the server ends a transaction whose body does nothing: it holds locks. Default 60,000. */
  readonly idleInTransactionTimeoutMs?: number;
}

const POOL_MAX = 10;
const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 30_000;
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000;
/** A connection that was not used for this long is closed. */
const IDLE_CONNECTION_MS = 30_000;
/** A server that vanished without a word is noticed by our own clock, this much after its own bound. */
const ANSWER_MARGIN_MS = 5_000;
/** A migration may rewrite a table, and waits for the lock of one that does. */
const SCRIPT_TIMEOUT_MS = 600_000;
/** Callers that may wait for a connection. Each awaits its own statement, so this is some hundred callers at once. */
const WAITING_MAX = 1_000;
/** Of the port: `body` is called at most 5 times. */
const TRANSACTION_TRIES_MAX = 5;
/** Before try n + 1 a random part of 2^n × 5 ms, so at most 150 ms in all: conflicts are of milliseconds. */
const CONFLICT_DELAY_MS = 5;

/** Type ids of `pg_type`, fixed for ever. @see postgresql.org, src/include/catalog/pg_type.dat (read 2026-11) */
const OID = {
  date: 1082,
  timestamp: 1114,
  interval: 1186,
  textArray: 1009,
  timestampArray: 1115,
  dateArray: 1182,
  intervalArray: 1187,
  numericArray: 1231,
} as const;
/** Where `pg` would guess a time zone or lose digits, text. Its own int8 and numeric are text already. */
const AS_TEXT = new Set<number>([OID.date, OID.timestamp, OID.interval]);
const AS_TEXT_ARRAY = new Set<number>([OID.timestampArray, OID.dateArray, OID.intervalArray, OID.numericArray]);
const TYPES: CustomTypesConfig = {
  getTypeParser(oid: number, format?: "text" | "binary") {
    if (AS_TEXT.has(oid)) return (text: string) => text;
    return types.getTypeParser(AS_TEXT_ARRAY.has(oid) ? OID.textArray : oid, format);
  },
};

/**
 * Opens a pool of connections to a PostgreSQL server, which must be there.
 *
 * A commit that resolved is as durable as the server's settings say (`fsync`, `synchronous_commit`). After an outage the
 * next statement connects anew: nothing here needs a restart.
 * @throws {TallyhouseError} STORE_UNAVAILABLE: retry when the server is away, halt when it refuses us (password,
 * database, TLS).
 */
export async function openPostgres(options: PostgresOptions): Promise<OpenedControlStore> {
  const connections = new Connections(options);
  try {
    const store = createStore(connections);
    const [row] = await store.query<{ server_version: string }>("SHOW server_version");
    return {
      store,
      // Debian's says more: `15.18 (Debian 15.18-0+deb12u1)`.
      serverVersion: row?.server_version.split(" ")[0] ?? "",
      place: `at ${connections.server}`,
      close: async () => connections.close(),
    };
  } catch (error) {
    await connections.close();
    throw error;
  }
}

/** `user@host:port/database`: what may be shown of a connection string. */
function shownServer(url: string): string {
  const { username, host, pathname } = new URL(url);
  return `${username}@${host}${pathname}`;
}

/** The pool, its bounds, and what is under way on it. */
class Connections {
  readonly server: string;
  readonly #pool: Pool;
  readonly #underWay = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  constructor(options: PostgresOptions) {
    const statementTimeoutMs = options.statementTimeoutMs ?? STATEMENT_TIMEOUT_MS;
    this.server = shownServer(options.url);
    this.#pool = new Pool({
      connectionString: options.url,
      application_name: options.applicationName ?? "tallyhouse",
      max: options.poolMax ?? POOL_MAX,
      connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      idleTimeoutMillis: IDLE_CONNECTION_MS,
      keepAlive: true,
      statement_timeout: statementTimeoutMs,
      query_timeout: statementTimeoutMs + ANSWER_MARGIN_MS,
      idle_in_transaction_session_timeout: options.idleInTransactionTimeoutMs ?? IDLE_IN_TRANSACTION_TIMEOUT_MS,
      types: TYPES,
    });
    // Unheard, these events would end the process. Who uses the connection hears of it from the statement; an unused one
    // leaves the pool, and the next statement opens another.
    const ignore = (): void => undefined;
    this.#pool.on("error", ignore);
    this.#pool.on("connect", (client) => client.on("error", ignore));
  }

  /**
   * Lends one connection to `work`, which says whether it is still good.
   * @throws {TallyhouseError} STORE_UNAVAILABLE when none is to be had; `work` was not called.
   */
  async lend<Result>(work: (client: PoolClient) => Promise<{ result: Result; isUsable: boolean }>): Promise<Result> {
    if (this.#closed !== undefined) throw storeUnavailable("answer: it is closed");
    if (this.#pool.waitingCount >= WAITING_MAX)
      throw storeUnavailable(`take a statement: ${WAITING_MAX} wait for a connection`);
    const lent = this.#lend(work);
    this.#underWay.add(lent);
    try {
      return await lent;
    } finally {
      this.#underWay.delete(lent);
    }
  }

  async #lend<Result>(work: (client: PoolClient) => Promise<{ result: Result; isUsable: boolean }>): Promise<Result> {
    const client = await this.#pool.connect().catch((error: unknown) => {
      throw storeUnavailable(`be reached at ${this.server}`, error, isOutage(error) ? "retry" : "halt");
    });
    let isUsable = false;
    try {
      const done = await work(client);
      isUsable = done.isUsable;
      return done.result;
    } catch (error) {
      // What the server refused leaves the connection as it was.
      isUsable = !isOutage(error);
      throw error;
    } finally {
      client.release(!isUsable);
    }
  }

  /** Takes no more work; resolves when all that was taken has ended and every connection is closed. Safe to repeat. */
  async close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#underWay).then(async () => this.#pool.end());
    await this.#closed;
  }
}

function createStore(connections: Connections): ControlStore {
  const guard = new TransactionGuard();
  const once = async <Result>(work: (client: PoolClient) => Promise<Result>): Promise<Result> => {
    guard.assertOutside();
    return mapOutages(async () => connections.lend(async (client) => ({ result: await work(client), isUsable: true })));
  };
  return {
    query: async <Row>(sql: string, params?: readonly unknown[]) =>
      once(async (client) => runStatement<Row>(client, { sql, params })),
    async execute(script) {
      // LOCAL: of the one implicit transaction that the whole script is.
      const text = `SET LOCAL statement_timeout = ${SCRIPT_TIMEOUT_MS};\n${script}`;
      const statement = { text, query_timeout: SCRIPT_TIMEOUT_MS + ANSWER_MARGIN_MS };
      await once(async (client) => client.query(statement));
    },
    async transaction<Result>(body: (tx: SqlRunner) => Promise<Result>) {
      guard.assertOutside();
      for (let tries = 1; ; tries += 1) {
        const attempt = await mapOutages(async () =>
          connections.lend(async (client) => attemptTransaction(client, { guard, body })),
        );
        switch (attempt.kind) {
          case "committed":
            return attempt.result;
          case "failed":
            throw attempt.error;
          case "conflict":
            if (tries === TRANSACTION_TRIES_MAX)
              throw storeUnavailable(`commit: other transactions were in the way ${tries} times`, attempt.error);
            await pause(randomInt(2 ** tries * CONFLICT_DELAY_MS));
        }
      }
    },
  };
}

type Attempt<Result> =
  | { readonly kind: "committed"; readonly result: Result }
  | { readonly kind: "conflict" | "failed"; readonly error: unknown };

/** One try of a transaction. Errors are values, so that a connection that rolled back well is used again. */
async function attemptTransaction<Result>(
  client: PoolClient,
  { guard, body }: { guard: TransactionGuard; body: (tx: SqlRunner) => Promise<Result> },
): Promise<{ result: Attempt<Result>; isUsable: boolean }> {
  /** Kept here too: a body may catch it, wrap it or carry on, and still only a new try can help. */
  let conflict: unknown;
  const query = async <Row>(sql: string, params?: readonly unknown[]): Promise<Row[]> => {
    try {
      return await runStatement<Row>(client, { sql, params });
    } catch (error) {
      if (isConflict(error)) conflict = error;
      throw error;
    }
  };
  await client.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
  try {
    const result = await guard.run(async (scope) =>
      body({
        query: async <Row>(sql: string, params?: readonly unknown[]) => {
          assert(scope.isOpen, "the transaction of this `tx` has ended");
          return mapOutages(async () => query<Row>(sql, params));
        },
      }),
    );
    await commit(client);
    return { result: { kind: "committed", result }, isUsable: true };
  } catch (error) {
    const isUsable = await client.query("ROLLBACK").then(
      () => true,
      () => false,
    );
    if (isConflict(error)) conflict = error;
    const result: Attempt<Result> =
      conflict === undefined ? { kind: "failed", error } : { kind: "conflict", error: conflict };
    return { result, isUsable };
  }
}

async function commit(client: PoolClient): Promise<void> {
  const { command } = await client.query("COMMIT").catch((error: unknown) => {
    if (isOutage(error) && !isConflict(error))
      throw storeUnavailable("say whether the transaction was committed", error);
    throw error;
  });
  // After a failed statement PostgreSQL answers COMMIT with ROLLBACK, and no error.
  if (command !== "COMMIT") throw new FailedTransaction();
}

/** The same SQLSTATE as PGlite and PostgreSQL give for any other statement of a failed transaction. */
class FailedTransaction extends Error {
  override readonly name = "FailedTransaction";
  readonly code = "25P02";

  constructor() {
    super("a statement of the transaction failed before COMMIT: nothing was committed");
  }
}

async function runStatement<Row>(
  client: PoolClient,
  { sql, params }: { sql: string; params: readonly unknown[] | undefined },
): Promise<Row[]> {
  // Extended: one statement and no script, with or without parameters.
  const statement = { text: sql, values: params === undefined ? [] : [...params], queryMode: "extended" };
  const { rows } = await client.query(statement);
  return rows as Row[];
}
