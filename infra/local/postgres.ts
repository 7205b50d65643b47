import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { access, chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { containerRecipe, IMAGES, usesContainers } from "./container.ts";
import { installDebianPackage } from "./debian-package.ts";
import { freePort } from "./free-port.ts";
import { type LocalServer, startServer } from "./local-server.ts";

/** Where Debian and Ubuntu keep the programs, one folder for each major version. */
const PROGRAMS = "/usr/lib/postgresql";
const USER = "tallyhouse";
/** Who runs the server when we are root, which PostgreSQL refuses: the first that exists. */
const SYSTEM_USERS = ["postgres", "nobody"];
/** Inside a container. */
const POSTGRES_PORT = 5_432;
const INITDB_TIMEOUT_MS = 60_000;
const PROBE_TIMEOUT_MS = 5_000;

const run = promisify(execFile);

/** Where the server keeps everything. */
export interface StartPostgresOptions {
  /**
   * Data, password and `postgres.log`; created when absent, used again when it holds a database. Started by root, it is
   * given to the user that runs the server, who must be able to reach it.
   */
  readonly folder: string;
  /** Default: a free one. */
  readonly port?: number;
}

/** A running server. `kill` ends the postmaster alone, as the kernel would; its children notice and end by themselves. */
export interface LocalPostgres extends LocalServer {
  /** For `POSTGRES_URL`, with the password; the database `postgres`, as a superuser. */
  readonly url: string;
}

/**
 * Starts one real PostgreSQL server (loopback only, password by SCRAM, fsync on) and resolves when it answers. The official image
 * where containers run (container.ts), else the Debian package, which is installed when it is missing and we are root.
 * @throws {Error} when there is no PostgreSQL, or it ends before it answers (with the end of its log).
 */
export async function startPostgres(options: StartPostgresOptions): Promise<LocalPostgres> {
  const { folder } = options;
  const port = options.port ?? (await freePort());
  if (await usesContainers()) return startContainer(folder, port);
  const programs = await programFolder();
  const user = await serverUser();
  await mkdir(folder, { recursive: true });
  if (user !== null) await chown(folder, user.uid, user.gid);
  const password = await initialise({ folder, programs, user });
  const [command = "", ...args] = asUser(user, [
    join(programs, "postgres"),
    "-D",
    join(folder, "data"),
    `--port=${port}`,
    "--listen_addresses=127.0.0.1",
    "--unix_socket_directories=",
    "--fsync=on",
  ]);
  const server = await startServer({
    name: `PostgreSQL on port ${port}`,
    command,
    args,
    logPath: join(folder, "postgres.log"),
    isAnswering: () => isReady(programs, port),
    // Fast shutdown: SIGTERM would wait until every client has gone.
    stopSignal: "SIGINT",
    // The children of a killed postmaster hold its shared memory until they have noticed.
    passingFailure: /pre-existing shared memory block/,
  });
  return Object.assign(server, { url: `postgres://${USER}:${password}@127.0.0.1:${port}/postgres` });
}

async function startContainer(folder: string, port: number): Promise<LocalPostgres> {
  await mkdir(folder, { recursive: true });
  const password = randomBytes(24).toString("hex");
  const recipe = await containerRecipe({
    image: IMAGES.postgres,
    port,
    insidePort: POSTGRES_PORT,
    environment: {
      POSTGRES_DB: "postgres",
      POSTGRES_USER: USER,
      POSTGRES_PASSWORD: password,
      POSTGRES_INITDB_ARGS: "--encoding=UTF8 --locale=C",
    },
  });
  const { container } = recipe;
  const server = await startServer({
    name: `PostgreSQL on port ${port}`,
    ...recipe,
    logPath: join(folder, "postgres.log"),
    // Over TCP: while the image makes the database, a server answers on its socket alone.
    isAnswering: () => succeeds("docker", ["exec", container, "pg_isready", "-q", "-h", "127.0.0.1"]),
    stopSignal: "SIGINT",
  });
  return Object.assign(server, { url: `postgres://${USER}:${password}@127.0.0.1:${port}/postgres` });
}

async function programFolder(): Promise<string> {
  const found = (await newestPrograms()) ?? (await installDebianPackage("postgresql").then(newestPrograms));
  if (found === null) throw new Error(`no PostgreSQL server below ${PROGRAMS}`);
  return found;
}

async function newestPrograms(): Promise<string | null> {
  const versions = (await readdir(PROGRAMS).catch(() => [])).toSorted((a, b) => Number(b) - Number(a));
  for (const version of versions) {
    const folder = join(PROGRAMS, version, "bin");
    if (await exists(join(folder, "initdb"))) return folder;
  }
  return null;
}

interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Null: as ourselves. */
async function serverUser(): Promise<ServerUser | null> {
  if (process.getuid?.() !== 0) return null;
  for (const name of SYSTEM_USERS) {
    const ids = await Promise.all(["-u", "-g"].map((flag) => run("id", [flag, name]))).catch(() => null);
    if (ids === null) continue;
    const [uid, gid] = ids.map(({ stdout }) => Number(stdout));
    if (uid !== undefined && gid !== undefined) return { uid, gid };
  }
  throw new Error(`PostgreSQL refuses to run as root, and there is no user ${SYSTEM_USERS.join(" or ")}`);
}

/** `setpriv` becomes the program itself, so its process id is the server's. */
function asUser(user: ServerUser | null, command: readonly string[]): readonly string[] {
  if (user === null) return command;
  return ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups", "--", ...command];
}

/** Makes the database on the first start; the password of whichever start that was. */
async function initialise(place: { folder: string; programs: string; user: ServerUser | null }): Promise<string> {
  const { folder, programs, user } = place;
  const data = join(folder, "data");
  const passwordPath = join(folder, "password");
  if (await exists(data)) return readFile(passwordPath, "utf8");
  const password = randomBytes(24).toString("hex");
  await writeFile(passwordPath, password, { mode: 0o600 });
  if (user !== null) await chown(passwordPath, user.uid, user.gid);
  // Renamed when it is whole: a kill in between costs only the next start its time.
  const fresh = `${data}.new`;
  await rm(fresh, { recursive: true, force: true });
  const [command = "", ...args] = asUser(user, [
    join(programs, "initdb"),
    `--pgdata=${fresh}`,
    `--username=${USER}`,
    `--pwfile=${passwordPath}`,
    "--auth=scram-sha-256",
    // As PGlite has it: UTF-8, byte order as collation.
    "--encoding=UTF8",
    "--locale=C",
  ]);
  await run(command, args, { timeout: INITDB_TIMEOUT_MS, cwd: folder });
  await rename(fresh, data);
  return password;
}

async function isReady(programs: string, port: number): Promise<boolean> {
  return succeeds(join(programs, "pg_isready"), ["-q", "-h", "127.0.0.1", "-p", String(port)]);
}

async function succeeds(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, args, { timeout: PROBE_TIMEOUT_MS }).then(
    () => true,
    () => false,
  );
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
