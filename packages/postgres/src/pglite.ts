import { access, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { PGlite, PGliteInterface, PGliteOptions, Transaction } from "@electric-sql/pglite";
import type { ControlStore, SqlRunner } from "@tallyhouse/domain";
import { mapOutages, storeUnavailable } from "./errors.ts";
import type { OpenedControlStore } from "./opened-control-store.ts";
import { TransactionGuard } from "./transaction-guard.ts";

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
    const db = await openFolder(PGlite, path);
    const state = { closed: false };
    const { rows } = await db.query<{ server_version: string }>("SHOW server_version");
    return {
      store: createStore(db, state),
      serverVersion: rows[0]?.server_version ?? "",
      place: "in the process",
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

async function isFile(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Stands in the folder of a database that was made whole. */
const COMPLETE_MARK = "tallyhouse-complete";

/**
 * Opens a folder; on the first start an empty database is unpacked into it, which takes a third of the CPU of `initdb`. The
 * mark comes last: a kill before it leaves half a database, which the next start makes anew, as nothing was ever acknowledged
 * from it.
 */
async function openFolder(pglite: typeof PGlite, path: string): Promise<PGlite> {
  const mark = join(path, COMPLETE_MARK);
  if (await isFile(mark)) return pglite.create(path, OPTIONS);
  const found = await namesIn(path);
  if (found.length > 0 && !found.includes("base") && !found.includes("PG_VERSION")) {
    throw new Error("the folder holds files but no PostgreSQL database");
  }
  await rm(path, { recursive: true, force: true });
  await mkdir(dirname(path), { recursive: true });
  // UTF-8, byte order as collation: no library of the machine decides an index.
  const { dataDir } = await import("@electric-sql/pglite-prepopulatedfs");
  const db = await pglite.create(path, { ...OPTIONS, loadDataDir: await dataDir() });
  await writeFile(mark, "");
  return db;
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** One connection: PGlite runs statements one after another, and nothing else during a transaction. */
function createStore(db: PGlite, state: Readonly<{ closed: boolean }>): ControlStore {
  const guard = new TransactionGuard();
  const guarded = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    guard.assertOutside();
    if (state.closed) throw storeUnavailable("answer: it is closed");
    return mapOutages(work);
  };
  return {
    query: async <Row>(sql: string, params?: readonly unknown[]) => guarded(async () => run<Row>(db, sql, params)),
    async execute(script) {
      await guarded(async () => db.exec(script));
    },
    transaction: async (body) =>
      guarded(async () => db.transaction(async (tx) => guard.run(async () => body(createRunner(tx))))),
  };
}

function createRunner(tx: Transaction): SqlRunner {
  return {
    query: async <Row>(sql: string, params?: readonly unknown[]) => mapOutages(async () => run<Row>(tx, sql, params)),
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
