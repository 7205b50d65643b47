import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
const PROBE_PAUSE_MS = 100;
const LOG_TAIL_CHARS = 2_000;

/** A server that runs as a process of this machine. */
export interface LocalServer {
  /** Of the process that runs now, on this machine; changes with {@link LocalServer.restart}. */
  readonly pid: number;
  /** Orderly stop; SIGKILL after 15 s. Safe to repeat. */
  stop(): Promise<void>;
  /** SIGKILL at once; also to one that is still starting, whose start then rejects. */
  kill(): void;
  /** Resolves when the process that runs now has ended, whoever ended it. */
  ended(): Promise<void>;
  /**
   * Starts again on the same data and port, after `kill` or `stop`; a running server is stopped first. `wrapper` is a command
   * that becomes the server's own process in the end, such as `strace -D`; its words go before the server's. A container takes none.
   */
  restart(wrapper?: readonly string[]): Promise<void>;
}

/** How a server is started and how one sees that it answers. */
export interface ServerRecipe {
  /** For messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Standard output and error are appended there. */
  readonly logPath: string;
  /** Whether it answers requests: an open port may belong to a server that is not ready. */
  isAnswering(): Promise<boolean>;
  /** Asks for an orderly stop. Default SIGTERM. */
  readonly stopSignal?: NodeJS.Signals;
  /** What the end of the log says when a start failed for a reason that passes by itself: it is tried again. */
  readonly passingFailure?: RegExp;
  /** The command is `docker run` of a container of this name. It is removed, with its data, when this process ends. */
  readonly container?: string;
}

/**
 * Starts the server and resolves when it answers.
 * @throws {Error} when it ends before it answers, or does not within 60 s, with the end of its log.
 */
export async function startServer(recipe: ServerRecipe): Promise<LocalServer> {
  let child: ChildProcess;
  // Noted at once, so that kill() reaches a server that is still starting.
  const start = (from: ServerRecipe): Promise<void> =>
    startUntilAnswering(from, (spawned) => {
      child = spawned;
    });
  await start(recipe);

  const stop = async (): Promise<void> => {
    if (hasEnded(child)) return;
    const ended = once(child, "exit");
    child.kill(recipe.stopSignal ?? "SIGTERM");
    const killer = setTimeout(() => killNow(recipe, child), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(killer);
  };
  return {
    get pid() {
      return recipe.container === undefined ? (child.pid ?? 0) : pidOfContainer(recipe.container);
    },
    stop,
    kill: () => killNow(recipe, child),
    ended: async () => {
      if (!hasEnded(child)) await once(child, "exit");
    },
    restart: async (wrapper = []) => {
      // After kill() the old process may still be ending, and holds the port and the data's lock until then.
      if (child.killed && !hasEnded(child)) await once(child, "exit");
      await stop();
      await start(againOf(recipe, wrapper));
    },
  };
}

/** How the server starts once it has been there: a container is started again, with the data it has. */
function againOf(recipe: ServerRecipe, wrapper: readonly string[]): ServerRecipe {
  if (recipe.container !== undefined) {
    if (wrapper.length > 0) throw new Error(`${recipe.name} runs in a container and takes no ${wrapper[0]}`);
    return { ...recipe, args: ["start", "--attach", recipe.container] };
  }
  const [command = "", ...args] = [...wrapper, recipe.command, ...recipe.args];
  return { ...recipe, command, args };
}

/** SIGKILL. To a container through the engine: our child is only the client that waits for its end. */
function killNow({ container }: ServerRecipe, child: ChildProcess): void {
  // Marks it killed either way; for a container the client ends with it.
  if (container === undefined) child.kill("SIGKILL");
  else docker("kill", container);
}

function pidOfContainer(container: string): number {
  return Number(execFileSync("docker", ["inspect", "--format", "{{.State.Pid}}", container], { encoding: "utf8" }));
}

/** One that has ended already, or is gone, is what was wanted. */
function docker(...args: readonly string[]): void {
  try {
    execFileSync("docker", args, { stdio: "ignore" });
  } catch (error) {
    if ((error as { status?: unknown }).status === undefined) throw error;
  }
}

/** A command that does not exist has no process, and no exit either. */
function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

async function startUntilAnswering(recipe: ServerRecipe, note: (child: ChildProcess) => void): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  let child = await spawnServer(recipe);
  note(child);
  while (!(await recipe.isAnswering())) {
    const isLate = performance.now() > deadline;
    if (hasEnded(child) || isLate) {
      child.kill("SIGKILL");
      const tail = (await readFile(recipe.logPath, "utf8")).slice(-LOG_TAIL_CHARS);
      if (isLate || recipe.passingFailure?.test(tail) !== true)
        throw new Error(`${recipe.name} does not answer; its log ${recipe.logPath} ends:\n${tail}`);
      child = await spawnServer(recipe);
      note(child);
    }
    await sleep(PROBE_PAUSE_MS);
  }
}

async function spawnServer({ command, args, logPath, container }: ServerRecipe): Promise<ChildProcess> {
  const log = await open(logPath, "a");
  const child = spawn(command, args, { stdio: ["ignore", log.fd, log.fd] });
  await log.close();
  // A test that dies must not leave a server behind; a container is kept until then, for its data.
  const killOnExit = (): void => {
    if (container === undefined) child.kill("SIGKILL");
    else docker("rm", "--force", "--volumes", container);
  };
  process.once("exit", killOnExit);
  child.once("exit", () => {
    if (container === undefined) process.off("exit", killOnExit);
  });
  child.on("error", killOnExit);
  return child;
}
