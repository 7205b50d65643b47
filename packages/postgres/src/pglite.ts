import { AsyncLocalStorage } from "node:async_hooks";
import { createHash, randomUUID } from "node:crypto";
import { access, constants, cp, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { PGlite, PGliteInterface, PGliteOptions, Transaction } from "@electric-sql/pglite";
import { assert, type ControlStore, type SqlRunner, TallyhouseError } from "@tallyhouse/domain";
import { isOutage, storeUnavailable } from "./errors.ts";

/** An open control store. */
export interface OpenedControlStore {
  readonly store: ControlStore;
  /** As the server says it, for example `18.6`. */
  readonly serverVersion: string;
  /** Waits for the statement in flight, then lets the folder go. The store is unusable afterwards. */
  close(): Promise<void>;
}

/**
 * `initdb` in our words: UTF-8, byte order as collation (no library of the machine decides an index), and write-ahead
 * segments of 1 MB instead of 16, which leaves a folder of 30 MB instead of 39.
 */
const INITDB_OPTIONS = [
  "--encoding=UTF8",
  "--locale=C.UTF-8",
  "--locale-provider=libc",
  "--auth=trust",
  "--wal-segsize=1",
  "--no-sync",
  "--no-instructions",
];

/** Type ids of `pg_type`, fixed for ever. @see postgresql.org, src/include/catalog/pg_type.dat (read 2026-11) */
const OID = { bytea: 17, int8: 20, date: 1082, timestamp: 1114, numeric: 1700 } as const;
const asText = (text: string): string => text;

/** Where JavaScript's own type would lose digits or guess a time zone, text; PGlite's defaults elsewhere. */
const OPTIONS: PGliteOptions = {
  relaxedDurability: false,
  parsers: {
    [OID.int8]: asText,
    [OID.numeric]: asText,
    [OID.date]: asText,
    [OID.timestamp]: asText,
    [OID.bytea]: (text) => Buffer.from(text.slice("\\x".length), "hex"),
  },
};

/**
 * Opens PostgreSQL in this process (PGlite) on a folder, which is created when it is missing.
 *
 * A commit that resolved survives SIGKILL. It does not survive power loss: this build never calls fsync. Nothing here
 * keeps a second process out: whoever opens it holds another lock first (standalone: chDB's folder).
 * @throws {TallyhouseError} STORE_UNAVAILABLE (halt) when the folder cannot be opened or created.
 */
export async function openPglite({ path }: { path: string }): Promise<OpenedControlStore> {
  // Loaded here and nowhere else: an image that uses a server leaves PGlite out.
  const { PGlite } = await import("@electric-sql/pglite");
  try {
    if (!(await isDatabase(path))) await initialise(PGlite, path);
    const db = await PGlite.create(path, OPTIONS);
    const state = { closed: false };
    const { rows } = await db.query<{ server_version: string }>("SHOW server_version");
    return {
      store: createStore(db, state),
      serverVersion: rows[0]?.server_version ?? "",
      async close() {
        if (state.closed) return;
        state.closed = true;
        await db.close();
      },
    };
  } catch (error) {
    throw storeUnavailable(`open the folder ${path}`, error, "halt");
  }
}

async function isDatabase(path: string): Promise<boolean> {
  return access(join(path, "PG_VERSION")).then(
    () => true,
    () => false,
  );
}

async function isMissingOrEmpty(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length === 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return true;
    throw error;
  }
}

/**
 * Makes the database in a folder beside and renames it: a kill in between leaves that folder, which the next start
 * removes. Made in place, the kill would leave half a database that looks like one.
 */
async function initialise(pglite: typeof PGlite, path: string): Promise<void> {
  const unfinished = `${path}.unfinished`;
  if (!(await isMissingOrEmpty(path))) throw new Error("the folder holds files but no PostgreSQL database");
  await mkdir(dirname(path), { recursive: true });
  await rm(unfinished, { recursive: true, force: true });
  const template = await freshTemplate(pglite);
  if (template === null) await initdb(pglite, unfinished);
  else await cp(template, unfinished, { recursive: true, mode: constants.COPYFILE_FICLONE });
  await rename(unfinished, path);
}

async function initdb(pglite: typeof PGlite, path: string): Promise<void> {
  const db = await pglite.create(path, { ...OPTIONS, initDbStartParams: INITDB_OPTIONS });
  await db.close();
}

/**
 * An empty database kept beside the installed packages: `initdb` takes seconds of CPU, a copy of its result a tenth. Made
 * once per installation and renamed when whole; null where that folder cannot be written.
 */
async function freshTemplate(pglite: typeof PGlite): Promise<string | null> {
  const made = createHash("sha256").update(JSON.stringify(INITDB_OPTIONS)).digest("hex").slice(0, 8);
  const packageFolder = dirname(dirname(createRequire(import.meta.url).resolve("@electric-sql/pglite")));
  const { version } = JSON.parse(await readFile(join(packageFolder, "package.json"), "utf8")) as { version: string };
  const template = join(packageFolder, "..", "..", ".cache", "tallyhouse", `pglite-${version}-${made}`);
  if (await isDatabase(template)) return template;
  const unfinished = `${template}.${randomUUID()}`;
  try {
    await mkdir(dirname(template), { recursive: true });
    await initdb(pglite, unfinished);
    await rename(unfinished, template);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    // Another process was faster, or nobody may write here.
    return (await isDatabase(template)) ? template : unwritable(error);
  }
  return template;
}

function unwritable(error: unknown): null {
  if (["EACCES", "EROFS", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "")) return null;
  throw error;
}

/** One connection: PGlite runs statements one after another, and nothing else during a transaction. */
function createStore(db: PGlite, state: Readonly<{ closed: boolean }>): ControlStore {
  const running = new AsyncLocalStorage<{ open: boolean }>();
  const guarded = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    // It would wait for the transaction that waits for it.
    assert(running.getStore()?.open !== true, "inside a transaction only its own `tx` may be used");
    if (state.closed) throw storeUnavailable("answer: it is closed");
    return mapErrors(work);
  };
  return {
    query: async <Row>(sql: string, params?: readonly unknown[]) => guarded(async () => run<Row>(db, sql, params)),
    async execute(script) {
      await guarded(async () => db.exec(script));
    },
    transaction: async (body) => {
      const scope = { open: true };
      return guarded(async () =>
        db.transaction(async (tx) => {
          try {
            return await running.run(scope, async () => body(createRunner(tx)));
          } finally {
            scope.open = false;
          }
        }),
      );
    },
  };
}

function createRunner(tx: Transaction): SqlRunner {
  return {
    query: async <Row>(sql: string, params?: readonly unknown[]) => mapErrors(async () => run<Row>(tx, sql, params)),
  };
}

async function run<Row>(
  target: Pick<PGliteInterface, "query">,
  sql: string,
  params: readonly unknown[] | undefined,
): Promise<Row[]> {
  const { rows } = await target.query<Row>(sql, params === undefined ? [] : [...params]);
  return rows;
}

/** An outage becomes a TallyhouseError; what PostgreSQL refuses keeps its own error, with the SQLSTATE in `code`. */
async function mapErrors<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TallyhouseError) && isOutage(error)) throw storeUnavailable("run a statement", error);
    throw error;
  }
}
