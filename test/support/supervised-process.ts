/** One of our services as a child process, started anew whenever it ends unasked: what a container platform does. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, closeSync, openSync } from "node:fs";
import process from "node:process";
import { pause } from "@tallyhouse/runtime";

/** Between an end and the next start; doubles while it ends by itself again and again, as container platforms do. */
const RESTART_PAUSE_MS = 200;
const RESTART_PAUSE_MAX_MS = 3_200;
/** Whoever lived that long has started well. */
const STARTED_WELL_MS = 10_000;

/** How to start the process. Ports stay the same over restarts. */
export interface ProcessSettings {
  readonly name: string;
  /** Path of its `main.ts`. */
  readonly program: string;
  readonly args?: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Where its `/livez`, `/readyz` and `/metrics` are; for the emulator its root. */
  readonly url: string;
  /** What it writes goes to this file. */
  readonly logPath: string;
}

/** A process that is wanted: until {@link SupervisedProcess.stop}, every end is followed by a start. */
export class SupervisedProcess {
  readonly settings: ProcessSettings;
  #child: ChildProcess | null = null;
  #ended: Promise<number | null> = Promise.resolve(null);
  #isWanted = false;
  /** Added to the environment of every later start. */
  addedEnv: NodeJS.ProcessEnv = {};
  /** Ends that nobody here asked for. */
  unexpectedEnds = 0;
  #isKilled = false;
  #pauseMs = RESTART_PAUSE_MS;

  constructor(settings: ProcessSettings) {
    this.settings = settings;
  }

  /** Of the process that runs now; undefined before the first start. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    this.#isWanted = true;
    this.#spawn();
  }

  #spawn(): void {
    const { program, args = [], env, logPath } = this.settings;
    const log = openSync(logPath, "a");
    const child = spawn(process.execPath, [program, ...args], {
      env: { ...env, ...this.addedEnv },
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    // A test that dies must not leave processes behind.
    const killOnExit = (): void => void child.kill("SIGKILL");
    process.once("exit", killOnExit);
    this.#child = child;
    this.#ended = once(child, "exit").then(([code]) => {
      process.off("exit", killOnExit);
      return code as number | null;
    });
    void this.#superviseEnd();
  }

  async #superviseEnd(): Promise<void> {
    const ended = this.#child;
    const startedAt = performance.now();
    const code = await this.#ended;
    if (!this.#isWanted) return;
    if (!this.#isKilled) this.unexpectedEnds += 1;
    const hasStartedWell = this.#isKilled || performance.now() - startedAt > STARTED_WELL_MS;
    this.#pauseMs = hasStartedWell ? RESTART_PAUSE_MS : Math.min(2 * this.#pauseMs, RESTART_PAUSE_MAX_MS);
    this.#isKilled = false;
    appendFileSync(this.settings.logPath, `--- ${this.settings.name} ended with ${code}; starting it again\n`);
    // time passes here: a supervisor's pause between two starts.
    await pause(this.#pauseMs);
    // Stopped and started again meanwhile: then another child runs already.
    if (this.#isWanted && this.#child === ended) this.#spawn();
  }

  /** SIGTERM, and no restart. @returns the exit code; null when a signal ended it. */
  async stop(): Promise<number | null> {
    this.#isWanted = false;
    this.#child?.kill("SIGTERM");
    return this.#ended;
  }

  /** SIGSTOP: it lives, holds its connections and does nothing until {@link SupervisedProcess.resume}. */
  suspend(): void {
    this.#child?.kill("SIGSTOP");
  }

  /** SIGCONT. */
  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  /** SIGKILL at once; the supervision goes on. Resolves when the process is gone; false when none ran to be killed. */
  async kill(): Promise<boolean> {
    const runs = this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
    if (!runs) return false;
    this.#isKilled = true;
    this.#child?.kill("SIGKILL");
    await this.#ended;
    return true;
  }

  /** SIGKILL and no restart: the end of a test. */
  async end(): Promise<void> {
    this.#isWanted = false;
    this.#child?.kill("SIGKILL");
    await this.#ended;
  }
}
