/** Runs one benchmark as a process of its own and reads its figures. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type Figures, parseFigures } from "./options.ts";

/** What runs now; a signal ends it before anything else is released. */
export class ChildBenches {
  #end: ((signal: NodeJS.Signals) => Promise<unknown>) | null = null;

  /**
   * Runs `bench:NAME` of the tree at `root`; its standard error is ours.
   * @throws {Error} when the tree has no such benchmark, or it fails, or its last line holds no figures.
   */
  async run(root: string, bench: { readonly name: string; readonly args: readonly string[] }): Promise<Figures> {
    const script = scriptsOf(root)[`bench:${bench.name}`];
    const file = /^node (\S+)$/.exec(script ?? "")?.[1];
    if (file === undefined) throw new Error(`${root} has no bench:${bench.name}`);
    // One that starts no server by itself finds it in the environment.
    const servers = needsBroker(root, bench)
      ? [join(root, "infra/local/run-with.ts"), "--kafka", "--", process.execPath]
      : [];
    const child = spawn(process.execPath, [...servers, join(root, file), ...bench.args], {
      cwd: root,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    this.#end = (signal) => {
      child.kill(signal);
      return exited;
    };
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    const [code] = (await exited) as [number | null];
    this.#end = null;
    if (code !== 0) throw new Error(`bench:${bench.name} ${bench.args.join(" ")} ended with ${code}\n${output}`);
    return parseFigures(output);
  }

  /** Resolves when the benchmark that runs now has ended. */
  async end(signal: NodeJS.Signals): Promise<void> {
    await this.#end?.(signal);
  }
}

/** Whether the tree at `root` has the benchmark. */
export function hasBench(root: string, name: string): boolean {
  return scriptsOf(root)[`bench:${name}`] !== undefined;
}

function scriptsOf(root: string): Readonly<Record<string, string>> {
  return (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> }).scripts;
}

/** Those that take the broker from the environment: the sender of `bench:ingest`, and every one of a revision from before. */
function needsBroker(
  root: string,
  { name, args }: { readonly name: string; readonly args: readonly string[] },
): boolean {
  if (!args.includes("kafka") || (process.env["KAFKA_BROKERS"] ?? "") !== "") return false;
  return name === "ingest" || !existsSync(join(root, "test/load/bench-place.ts"));
}
