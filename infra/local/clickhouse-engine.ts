/** The engine behind the front: one chDB session for each statement, so that nothing of one reaches another. */
import process from "node:process";
import { setInterval as every } from "node:timers";
import { Session } from "chdb";
import type { InsertHead } from "./clickhouse-statement.ts";

/** Statements at a time; each holds a thread of Node's pool while the engine works. */
export const STATEMENTS_RUNNING_MAX = 8;
/** Statements that wait for a place; beyond, the caller is told so. */
export const STATEMENTS_WAITING_MAX = 1_000;

/** What surrounds a statement. */
export interface Surroundings {
  readonly database: string | undefined;
  /** As they came: text, which the engine converts. */
  readonly settings: ReadonlyMap<string, string>;
  /** Without `param_`, in the escaping of a TabSeparated field. */
  readonly params: ReadonlyMap<string, string>;
  readonly isReadOnly: boolean;
}

/** What a finished statement says of itself. */
export interface Outcome {
  readonly bytes: Uint8Array;
  readonly rows: number;
  readonly rowBytes: number;
  readonly elapsedSeconds: number;
}

/** A file, and the engine's name for how it is packed; `none` when it is not. */
export interface PackedFile {
  readonly path: string;
  readonly compression: string;
}

/** See packages/clickhouse/src/lost-writes.ts: chDB goes on after a write() that the system refused, and merely counts it. */
const REFUSED_WRITES = "SELECT value FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteFailed'";
/** Sources of a merge stay for 480 s. */
const WATCH_INTERVAL_MS = 5_000;

/**
 * Ends the process before a statement whose bytes were lost is answered. A new start sets the broken parts aside and uses the
 * sources of a broken merge again.
 */
async function endAfterLostWrites(session: Session): Promise<void> {
  const refused = (await session.queryAsync(`${REFUSED_WRITES} FORMAT TabSeparated`)).text().trim();
  if (refused === "" || refused === "0") return;
  process.stderr.write(`The system refused ${refused} writes of the engine; is the disk full?\n`);
  process.exit(1);
}

/** One statement's session. */
export interface OpenSession {
  run(sql: string, format: string): Promise<Outcome>;
  /** Rows as the engine makes them, in pieces of some 65,000. */
  stream(sql: string, format: string): AsyncIterable<{ bytes: Uint8Array; rows: number }>;
  /** What the file holds, unpacked. For encodings that Node does not know. */
  unpack(file: PackedFile, bytesMax: number): Promise<Uint8Array>;
  /** The file's rows as one INSERT; the engine unpacks `compression` itself. */
  insertFile(head: InsertHead, file: PackedFile): Promise<Outcome>;
}

/** Of a statement of the front's own. */
export const NO_SURROUNDINGS: Surroundings = {
  database: undefined,
  settings: new Map(),
  params: new Map(),
  isReadOnly: false,
};

/** An open folder. */
export interface Engine {
  readonly version: string;
  readonly timezone: string;
  /** Opens a session, hands it over and closes it, whatever happens. Waits for a place first. */
  within<Result>(surroundings: Surroundings, use: (session: OpenSession) => Promise<Result>): Promise<Result>;
  close(): void;
}

/** Opens the folder for as long as the process lives: the engine of chDB is one per process. */
export async function openEngine(folder: string, busy: () => Error): Promise<Engine> {
  // Held so that the engine stays open between statements.
  const keeper = new Session(folder);
  const watch = every(() => void endAfterLostWrites(keeper), WATCH_INTERVAL_MS);
  const text = (await keeper.queryAsync("SELECT version(), timezone() FORMAT TabSeparated")).text();
  const [version = "", timezone = ""] = text.trim().split("\t");
  const waiting: (() => void)[] = [];
  let running = 0;
  const take = async (): Promise<void> => {
    if (running < STATEMENTS_RUNNING_MAX) running += 1;
    else if (waiting.length >= STATEMENTS_WAITING_MAX) throw busy();
    else await new Promise<void>((resolve) => waiting.push(resolve));
  };
  // The place is handed over, not freed, so that a newcomer cannot overtake who waits.
  const give = (): void => {
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  };
  return {
    version,
    timezone,
    async within(surroundings, use) {
      await take();
      try {
        const session = new Session(folder);
        try {
          await surround(session, surroundings);
          return await use(openSession(session));
        } finally {
          session.close();
        }
      } finally {
        give();
      }
    },
    close: () => {
      clearInterval(watch);
      keeper.close();
    },
  };
}

/** Settings and parameters become SET, which would stick to a session; this one ends with the statement. */
async function surround(session: Session, { database, settings, params, isReadOnly }: Surroundings): Promise<void> {
  if (database !== undefined) await session.queryAsync(`USE ${nameOf(database)}`);
  const assignments = [
    ...[...settings].map(([name, value]) => `${nameOf(name)} = ${literalOf(value)}`),
    ...[...params].map(([name, value]) => `param_${name} = ${literalOf(value)}`),
    // Last: a read-only session takes no more settings of some kinds.
    ...(isReadOnly ? ["readonly = 2"] : []),
  ];
  if (assignments.length > 0) await session.queryAsync(`SET ${assignments.join(", ")}`);
}

function openSession(session: Session): OpenSession {
  const run = async (sql: string, format: string): Promise<Outcome> => {
    const result = await session.queryAsync(sql, { format });
    await endAfterLostWrites(session);
    return {
      bytes: result.bytes(),
      rows: result.rowsRead,
      rowBytes: result.bytesRead,
      elapsedSeconds: result.elapsed,
    };
  };
  return {
    run,
    async *stream(sql, format) {
      for await (const piece of session.queryStream(sql, { format })) yield { bytes: piece.raw(), rows: piece.numRows };
    },
    async unpack({ path, compression }, bytesMax) {
      const file = `file(${literalOf(path)}, 'RawBLOB', 'packed String', ${literalOf(compression)})`;
      const { bytes } = await run(`SELECT packed FROM ${file} SETTINGS max_result_bytes = ${bytesMax}`, "RawBLOB");
      return bytes;
    },
    async insertFile({ target, settings, format }, { path, compression }) {
      const source = `FROM INFILE ${literalOf(path)} COMPRESSION ${literalOf(compression)}`;
      return run(`${target} ${source} ${settings} FORMAT ${format}`, "Null");
    },
  };
}

function literalOf(text: string): string {
  return `'${text.replaceAll("\\", String.raw`\\`).replaceAll("'", String.raw`\'`)}'`;
}

function nameOf(text: string): string {
  return `\`${text.replaceAll("\\", String.raw`\\`).replaceAll("`", "\\`")}\``;
}
