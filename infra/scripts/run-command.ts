/** Runs a tool of the pinned toolchain and keeps what it prints. */
import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import process from "node:process";

/** The repository's root: every script of this folder works from there, whatever folder it was called in. */
export const repositoryRoot = join(import.meta.dirname, "..", "..");

const binFolder = join(repositoryRoot, "node_modules", ".bin");

/** Standard output and standard error together, in the order they arrived, and how the command ended. */
export interface CommandResult {
  readonly output: string;
  /** 128 when a signal ended it. */
  readonly exitCode: number;
  readonly elapsedMs: number;
}

/**
 * Runs a command at the repository's root with node_modules/.bin first in PATH, so that the pinned Node and tools are used.
 * Rejects only when the command cannot be started; what it answers is in `exitCode`. `echo` also shows the output at once.
 */
export function runCommand(
  command: string,
  args: readonly string[],
  options = { echo: false },
): Promise<CommandResult> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: repositoryRoot,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        PATH: `${binFolder}${delimiter}${process.env["PATH"] ?? ""}`,
        // Nothing of a build may depend on a vendor's server, or tell it something.
        DO_NOT_TRACK: "1",
        TURBO_TELEMETRY_DISABLED: "1",
        TURBO_NO_UPDATE_NOTIFIER: "1",
      },
    });
    const chunks: Buffer[] = [];
    const keep = (chunk: Buffer): void => {
      chunks.push(chunk);
      if (options.echo) process.stdout.write(chunk);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({
        output: Buffer.concat(chunks).toString("utf8"),
        exitCode: code ?? 128,
        elapsedMs: performance.now() - startedAt,
      });
    });
  });
}
