/** CPU and resident memory of processes and all their descendants, from /proc. */
import { readdirSync, readFileSync } from "node:fs";
import { setInterval } from "node:timers/promises";
import { rounded } from "./options.ts";

/** Linux counts CPU in hundredths of a second, on every architecture it runs on. */
const TICK_MICROSECONDS = 10_000;
const SAMPLE_MS = 1_000;
const MEGABYTE = 1e6;
/** A "minute" of a short run is its quarter. */
const MINUTE_MS = 60_000;

interface Sample {
  readonly cpuMicroseconds: number;
  readonly rssBytes: number;
}

/** Name → sum over the process and those descendants that have no name of their own. A process that has ended counts nothing. */
export function sampleProcesses(pids: Readonly<Record<string, number>>): Readonly<Record<string, Sample>> {
  const children = new Map<number, number[]>();
  const own = new Map<number, Sample>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const read = readProcess(pid);
    if (read === null) continue;
    own.set(pid, read.sample);
    children.set(read.parent, [...(children.get(read.parent) ?? []), pid]);
  }
  const named = new Set(Object.values(pids));
  const sumOf = (pid: number): Sample => {
    const unnamed = (children.get(pid) ?? []).filter((child) => !named.has(child));
    return unnamed.map(sumOf).reduce(
      (sum, { cpuMicroseconds, rssBytes }) => ({
        cpuMicroseconds: sum.cpuMicroseconds + cpuMicroseconds,
        rssBytes: sum.rssBytes + rssBytes,
      }),
      own.get(pid) ?? { cpuMicroseconds: 0, rssBytes: 0 },
    );
  };
  return Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, sumOf(pid)]));
}

function readProcess(pid: number): { parent: number; sample: Sample } | null {
  try {
    // The name in parentheses may hold spaces; behind it field 4 is the parent, 14 and 15 are ticks, 16 and 17 those of children that ended.
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
    const rss = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
    return {
      parent: Number(fields[1]),
      sample: { cpuMicroseconds: ticks * TICK_MICROSECONDS, rssBytes: Number(rss) * 1_024 },
    };
  } catch {
    // It ended between the listing and the reading.
    return null;
  }
}

/** Resident memory of one process over a run, in megabytes. */
export interface MemoryFigures {
  readonly firstMinute: number;
  readonly lastMinute: number;
  readonly peak: number;
}

/** Looks at processes once a second until it is stopped. */
export class ProcessWatch {
  readonly #pids: Readonly<Record<string, number>>;
  readonly #before: Readonly<Record<string, Sample>>;
  readonly #startedAt = performance.now();
  readonly #seen: { readonly atMs: number; readonly rssBytes: Readonly<Record<string, number>> }[] = [];
  #isStopped = false;

  constructor(pids: Readonly<Record<string, number>>) {
    this.#pids = pids;
    this.#before = this.#look();
    void this.#watch();
  }

  async #watch(): Promise<void> {
    // Unreferenced: a benchmark that fails must not stay for it.
    const looks = setInterval(SAMPLE_MS, null, { ref: false });
    for await (const _ of looks) {
      if (this.#isStopped) return;
      this.#look();
    }
  }

  #look(): Readonly<Record<string, Sample>> {
    const samples = sampleProcesses(this.#pids);
    const rssBytes = Object.fromEntries(Object.entries(samples).map(([name, { rssBytes: bytes }]) => [name, bytes]));
    this.#seen.push({ atMs: performance.now() - this.#startedAt, rssBytes });
    return samples;
  }

  /** CPU seconds since the start and memory over time, per process. Safe to call once; the processes must still run. */
  stop(): {
    readonly cpuSeconds: Readonly<Record<string, number>>;
    readonly memoryMegabytes: Readonly<Record<string, MemoryFigures>>;
  } {
    this.#isStopped = true;
    const after = this.#look();
    const names = Object.keys(this.#pids);
    const cpuOf = (name: string): number =>
      (after[name]?.cpuMicroseconds ?? 0) - (this.#before[name]?.cpuMicroseconds ?? 0);
    return {
      cpuSeconds: Object.fromEntries(names.map((name) => [name, rounded(cpuOf(name) / 1e6, 2)])),
      memoryMegabytes: Object.fromEntries(names.map((name) => [name, this.#memoryOf(name)])),
    };
  }

  #memoryOf(name: string): MemoryFigures {
    const endMs = this.#seen.at(-1)?.atMs ?? 0;
    const spanMs = Math.min(MINUTE_MS, endMs / 4);
    const points = this.#seen.map(({ atMs, rssBytes }) => ({ atMs, bytes: rssBytes[name] ?? 0 }));
    return memoryFigures(points, { spanMs, endMs });
  }
}

/** CPU of all processes together. */
export function microsecondsPerEvent(cpuSeconds: Readonly<Record<string, number>>, events: number): number {
  const seconds = Object.values(cpuSeconds).reduce((sum, each) => sum + each, 0);
  return rounded((seconds * 1e6) / Math.max(1, events), 2);
}

/** Means of the first and the last span, and the largest. */
export function memoryFigures(
  points: readonly { readonly atMs: number; readonly bytes: number }[],
  run: { readonly spanMs: number; readonly endMs: number },
): MemoryFigures {
  const mean = (from: number, to: number): number => {
    const inside = points.filter(({ atMs }) => atMs >= from && atMs <= to);
    const sum = inside.reduce((total, { bytes }) => total + bytes, 0);
    return Math.round(sum / Math.max(1, inside.length) / MEGABYTE);
  };
  return {
    firstMinute: mean(0, run.spanMs),
    lastMinute: mean(run.endMs - run.spanMs, run.endMs),
    peak: Math.round(points.reduce((most, { bytes }) => Math.max(most, bytes), 0) / MEGABYTE),
  };
}
