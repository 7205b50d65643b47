/**
 * The servers of a chaos run: Kafka, PostgreSQL and the ClickHouse front on a small disk of its own, which can be filled. Also
 * the kill at a filesystem call: strace ends the ClickHouse process at the k-th call of one kind that one of its threads makes.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { type LocalClickHouse, startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { type LocalKafka, startKafka } from "@tallyhouse/infra/local/kafka.ts";
import { type LocalPostgres, startPostgres } from "@tallyhouse/infra/local/postgres.ts";
import type { SystemCall } from "./plan.ts";

/** A sparse file: it takes what is written to it. */
const DISK_SIZE = "8G";
/** Left to the second step of {@link SmallDisk.fill}: an allocation that does not fit takes nothing. */
const MARGIN_BYTES = 8 * 1_048_576;
const run = promisify(execFile);

/** Servers that run, and how they are hurt. */
export interface ChaosServers {
  readonly kafka: LocalKafka;
  readonly clickhouse: LocalClickHouse;
  readonly postgres: LocalPostgres;
  /** ClickHouse's, where it is to be filled. */
  readonly disk: SmallDisk | null;
  stop(): Promise<void>;
}

/** Starts them below `folder`. @throws {Error} when a small disk is wanted and cannot be mounted: that takes root. */
export async function startServers(folder: string, wants: { smallDisk: boolean }): Promise<ChaosServers> {
  // PostgreSQL runs as another user when we are root, and must come through here to its own folder.
  chmodSync(folder, 0o711);
  const disk = wants.smallDisk ? await SmallDisk.mount(join(folder, "disk")) : null;
  const [kafka, clickhouse, postgres] = await Promise.all([
    startKafka({ folder: join(folder, "kafka") }),
    startClickHouse({ folder: join(disk?.folder ?? folder, "clickhouse") }),
    startPostgres({ folder: join(folder, "postgres") }),
  ]);
  return {
    kafka,
    clickhouse,
    postgres,
    disk,
    async stop() {
      await Promise.all([kafka.stop(), clickhouse.stop(), postgres.stop()]);
      await disk?.unmount();
    },
  };
}

/** An ext4 file system in a file. */
class SmallDisk {
  readonly folder: string;
  readonly #ballast: string;
  readonly #unmountAtExit: () => void;

  private constructor(folder: string) {
    this.folder = folder;
    this.#ballast = join(folder, "ballast");
    // A run that dies must not leave a mount behind. Lazily: the server on it may still be ending.
    this.#unmountAtExit = () => void execFileSync("umount", ["-l", folder], { stdio: "ignore" });
  }

  static async mount(folder: string): Promise<SmallDisk> {
    mkdirSync(folder, { recursive: true });
    const image = `${folder}.img`;
    await run("truncate", ["-s", DISK_SIZE, image]);
    await run("mkfs.ext4", ["-q", "-m", "0", image]);
    await run("mount", ["-o", "loop", image, folder]);
    const disk = new SmallDisk(folder);
    process.once("exit", disk.#unmountAtExit);
    return disk;
  }

  /** Takes every free block; safe to repeat while something frees some. */
  async fill(): Promise<void> {
    const { bavail, bsize } = statfsSync(this.folder);
    const bytes = bavail * bsize - MARGIN_BYTES;
    if (bytes > 0) await run("fallocate", ["-l", String(bytes), this.#ballast]);
    // The rest block by block, until there is none: dd ends with the error that is wanted.
    await run("dd", ["if=/dev/zero", `of=${this.#ballast}.rest`, "bs=4096"]).catch(() => undefined);
  }

  free(): void {
    rmSync(this.#ballast, { force: true });
    rmSync(`${this.#ballast}.rest`, { force: true });
  }

  async unmount(): Promise<void> {
    process.off("exit", this.#unmountAtExit);
    await run("umount", [this.folder]);
  }
}

function injection(call: SystemCall, k: number): string[] {
  return ["-f", "-q", "-o", "/dev/null", "-e", `trace=${call}`, "-e", `inject=${call}:signal=KILL:when=${k}`];
}

/** For {@link LocalClickHouse.restart}: the server dies at a call of its own start, or soon after. */
export function dyingAt(call: SystemCall, k: number): readonly string[] {
  // -D: the tracer is the grandchild, so that the process started is the server itself.
  return ["strace", "-D", ...injection(call, k)];
}

/** Ends the running server at a call; false when it made none in time. */
export async function killAtCall(
  server: LocalClickHouse,
  at: { call: SystemCall; k: number; timeoutMs: number },
): Promise<boolean> {
  const { call, k, timeoutMs } = at;
  const tracer = spawn("strace", ["-p", String(server.pid), ...injection(call, k)], { stdio: "ignore" });
  const tracerEnd = once(tracer, "exit");
  let isLate = false;
  // time passes here: the bound of a wait.
  const timer = setTimeout(() => {
    isLate = true;
    // SIGTERM: strace lets the server go before it ends.
    tracer.kill("SIGTERM");
  }, timeoutMs);
  await Promise.race([tracerEnd, server.ended()]);
  clearTimeout(timer);
  await tracerEnd;
  return !isLate;
}
