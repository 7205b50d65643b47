/** Stores, kills, rebuilds, grows and checks the dedupe index of a plan on the real engine. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import type { DedupeIndex } from "../dedupe-index.ts";
import { DedupeMemory } from "../dedupe-memory.ts";
import { RowCutter } from "../identity-rows.ts";
import { openTask } from "../open.ts";
import { createResultStore } from "../result-store.ts";
import {
  ASKED_WORDS,
  askedSql,
  bookedAtOf,
  createAsker,
  hashSeedOf,
  HORIZON_SECONDS,
  type IdentityPlan,
  LATER_SPAN_SECONDS,
  PARTITIONS,
  STREAM_ID,
} from "./identity-shapes.ts";

const WRITER = fileURLToPath(new URL("./identity-writer.fixture.ts", import.meta.url));
/** Inserts behind progress that the writer acknowledged before it is killed in the next one. */
const KILLED_AFTER = 3;
/** As many as the aggregator opens at a time. */
const OPENS_AT_ONCE = 4;
/** Rows of one scan: a slow machine must not reach the store's 60 s. */
const SCAN_ROWS = 500_000;
/** Of the expired identities one in so many is counted again, with another payload. */
const RECOUNTED_EVERY = 1_000;

/** What a run found. Seconds and milliseconds are of a wall clock, so of whatever else the machine did as well. */
export interface DedupeFigures {
  readonly identities: number;
  readonly writeSeconds: number;
  readonly rebuildSeconds: number;
  /** The longest time the event loop did not turn while the index was rebuilt. */
  readonly longestPauseMs: number;
  readonly rssMegabytes: number;
  readonly bytesPerIdentity: number;
  readonly bytesPerIdentityWorst: number;
  readonly putsPerSecond: number;
  readonly longestPutMs: number;
  /** Puts that made their sub-table grow: how long half of them took at most, and 99 of 100. */
  readonly growthMsMedian: number;
  readonly growthMsP99: number;
  readonly lookupMicroseconds: number;
  /** Identities asked for with fingerprints of the engine, and with those of the product's digester. */
  readonly checkedByEngine: number;
  readonly checkedByDigester: number;
  readonly falsePositives: number;
  readonly falseNegatives: number;
}

type GrowthFigures = Pick<
  DedupeFigures,
  "bytesPerIdentity" | "bytesPerIdentityWorst" | "putsPerSecond" | "longestPutMs" | "growthMsMedian" | "growthMsP99"
>;

/** Stores the plan in a process of its own and kills it while it stores what comes after. Resolves with the seconds until progress. */
export async function writeAndKill(folder: string, plan: IdentityPlan): Promise<number> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, [WRITER, folder, JSON.stringify(plan)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  let stored = 0;
  let seconds = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    if (line !== "stored") continue;
    if (stored === 0) seconds = (performance.now() - startedAt) / 1_000;
    stored += 1;
    if (stored === KILLED_AFTER) child.kill("SIGKILL");
  }
  const [code, signal] = (await closed) as [number | null, string | null];
  if (signal !== "SIGKILL") throw new Error(`the writer ended by itself: exit code ${code}`);
  return seconds;
}

/** Rebuilds the index from what {@link writeAndKill} left, lets it grow for a day, and asks it for every identity. */
export async function rebuildAndCheck(
  folder: string,
  plan: IdentityPlan,
  digestEvery: number,
): Promise<Omit<DedupeFigures, "writeSeconds">> {
  const startedAt = performance.now();
  const opened = await openClickHouse({ path: folder });
  // Not before: loading the engine's library holds the thread, and no partition is folded yet.
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  try {
    const run = new Run(plan, opened.store);
    await run.rebuild();
    const rebuildSeconds = (performance.now() - startedAt) / 1_000;
    delay.disable();
    const identities = run.memory.size;
    const rssMegabytes = Math.round(process.memoryUsage.rss() / 1e6);
    const growth = await run.grow();
    await run.checkByEngine();
    run.checkByDigester(digestEvery);
    const { falsePositives, falseNegatives, checkedByEngine, checkedByDigester } = run;
    return {
      identities,
      rebuildSeconds,
      longestPauseMs: delay.max / 1e6,
      rssMegabytes,
      ...growth,
      lookupMicroseconds: run.timeLookups(),
      checkedByEngine,
      checkedByDigester,
      falsePositives,
      falseNegatives,
    };
  } finally {
    await opened.close();
  }
}

/** The indexes of all partitions, and what was found wrong with them. */
class Run {
  falsePositives = 0;
  falseNegatives = 0;
  checkedByEngine = 0;
  checkedByDigester = 0;
  readonly memory = new DedupeMemory({ bytesMax: 2 ** 40, partitionCount: PARTITIONS });
  readonly #plan: IdentityPlan;
  readonly #analytics: AnalyticsStore;
  readonly #indexes: DedupeIndex[] = [];
  /** The log clock after the growth; identities booked before `keptFrom` have expired by then. */
  readonly #clockAt: number;
  readonly #keptFrom: number;

  constructor(plan: IdentityPlan, analytics: AnalyticsStore) {
    this.#plan = plan;
    this.#analytics = analytics;
    this.#clockAt = plan.clockAt + 1 + LATER_SPAN_SECONDS;
    this.#keptFrom = this.#clockAt - HORIZON_SECONDS;
  }

  /** Opens every partition the way the aggregator does. */
  async rebuild(): Promise<void> {
    const { clockAt, written } = this.#plan;
    const stream = {
      streamId: STREAM_ID,
      partitionCount: PARTITIONS,
      bookingWindowSeconds: 900,
      hashSeed: hashSeedOf(this.#plan),
    };
    const clock = { now: () => clockAt * 1_000 };
    const store = createResultStore({ analytics: this.#analytics, stream, clock, writer: "rebuild" });
    const log = { bounds: () => Promise.resolve({ earliestOffset: 0, endOffset: written }) } as unknown as EventLog;
    const waiting = Array.from({ length: PARTITIONS }, (_, partition) => partition);
    const lane = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const { memory } = this;
        const { signal } = new AbortController();
        const { task } = await openTask(next, {
          log,
          store,
          stream,
          predecessors: [],
          horizonSeconds: HORIZON_SECONDS,
          memory,
          signal,
        });
        this.#indexes[next] = task.index;
      }
    };
    await Promise.all(Array.from({ length: OPENS_AT_ONCE }, lane));
  }

  /**
   * Counts what comes after, each asked for before it is put, as the fold does: none may be known, though some of it lay in the
   * table behind progress. Then counts some expired identities again.
   */
  async grow(): Promise<GrowthFigures> {
    const { written, later } = this.#plan;
    let longestPutMs = 0;
    let putMs = 0;
    const growthsMs: number[] = [];
    let worst = 0;
    let sum = 0;
    let samples = 0;
    await this.#scan(written, later, (rows) => {
      for (let at = 0; at < rows.length; at += ASKED_WORDS) {
        const { index, fingerprint, bookedAt, payloadCheck } = this.#identityAt(rows, at);
        if (index.find(fingerprint, bookedAt) !== null) this.falsePositives += 1;
        const { sizeBytes } = index;
        const before = performance.now();
        index.put(fingerprint, bookedAt, payloadCheck);
        const tookMs = performance.now() - before;
        if (index.sizeBytes !== sizeBytes) growthsMs.push(tookMs);
        putMs += tookMs;
        longestPutMs = Math.max(longestPutMs, tookMs);
      }
      const bytes = this.memory.sizeBytes / this.memory.size;
      worst = Math.max(worst, bytes);
      sum += bytes;
      samples += 1;
    });
    const ask = createAsker(this.#plan);
    for (let n = 0; this.#isRecounted(n); n += RECOUNTED_EVERY) {
      const { identity } = ask(n);
      this.#judge(this.#indexes[identity.partition]?.find(identity, this.#clockAt), null);
      this.#indexes[identity.partition]?.put(identity, this.#clockAt, ~identity.payloadCheck >>> 0);
    }
    growthsMs.sort((a, b) => a - b);
    const growthOf = (share: number): number => growthsMs[Math.floor(growthsMs.length * share)] ?? 0;
    return {
      growthMsMedian: growthOf(0.5),
      growthMsP99: growthOf(0.99),
      bytesPerIdentity: sum / samples,
      bytesPerIdentityWorst: worst,
      putsPerSecond: later / (putMs / 1_000),
      longestPutMs,
    };
  }

  /** Asks for every identity and every twin, by fingerprints that the engine makes. */
  async checkByEngine(): Promise<void> {
    const { written, later } = this.#plan;
    await this.#scan(0, written + later, (rows) => {
      for (let at = 0; at < rows.length; at += ASKED_WORDS) {
        const { index, n, fingerprint, payloadCheck } = this.#identityAt(rows, at);
        this.#judge(index.find(fingerprint, this.#clockAt), this.#expected(n, payloadCheck));
        const twin = this.#indexes[rows[at + 9] as number];
        const twinPrint = {
          word0: rows[at + 6] as number,
          word1: rows[at + 7] as number,
          word2: rows[at + 8] as number,
        };
        this.#judge(twin?.find(twinPrint, this.#clockAt), null);
        this.checkedByEngine += 1;
      }
    });
  }

  /** Asks for one in `every` identities and its twin as the fold would. */
  checkByDigester(every: number): void {
    const { written, later } = this.#plan;
    const ask = createAsker(this.#plan);
    for (let n = 0; n < written + later; n += every) {
      const { identity, twin } = ask(n);
      const found = this.#indexes[identity.partition]?.find(identity, this.#clockAt);
      this.#judge(found, this.#expected(n, identity.payloadCheck));
      this.#judge(this.#indexes[twin.partition]?.find(twin, this.#clockAt), null);
      this.checkedByDigester += 1;
    }
  }

  /** Microseconds of one lookup, half of them hits, in random order. */
  timeLookups(): number {
    const ask = createAsker(this.#plan);
    const step = Math.max(1, Math.floor(this.#plan.written / 100_000));
    const asked = Array.from({ length: 100_000 }, (_, n) => ask((n * step) % this.#plan.written)).flatMap(
      ({ identity, twin }) => [identity, twin],
    );
    const startedAt = performance.now();
    let hits = 0;
    for (const one of asked) if (this.#indexes[one.partition]?.find(one, this.#clockAt) !== null) hits += 1;
    const tookMs = performance.now() - startedAt;
    if (hits === 0) throw new Error("no lookup hit");
    return (tookMs * 1_000) / asked.length;
  }

  #isRecounted(n: number): boolean {
    return n % RECOUNTED_EVERY === 0 && bookedAtOf(this.#plan, n) < this.#keptFrom;
  }

  /** What the index must say of the n-th identity at the end; null for unknown. */
  #expected(n: number, payloadCheck: number): number | null {
    if (this.#isRecounted(n)) return ~payloadCheck >>> 0;
    return bookedAtOf(this.#plan, n) < this.#keptFrom ? null : payloadCheck;
  }

  #judge(found: number | null | undefined, expected: number | null): void {
    if (found === expected) return;
    if (expected === null) this.falsePositives += 1;
    else this.falseNegatives += 1;
  }

  #identityAt(rows: Uint32Array, at: number) {
    const index = this.#indexes[rows[at + 4] as number];
    if (index === undefined) throw new Error(`no index of partition ${rows[at + 4]}`);
    const n = rows[at + 5] as number;
    const fingerprint = { word0: rows[at] as number, word1: rows[at + 1] as number, word2: rows[at + 2] as number };
    return { index, n, fingerprint, bookedAt: bookedAtOf(this.#plan, n), payloadCheck: rows[at + 3] as number };
  }

  async #scan(begin: number, count: number, visit: (rows: Uint32Array) => void): Promise<void> {
    const sql = askedSql(this.#plan);
    for (let from = begin; from < begin + count; from += SCAN_ROWS) {
      const cutter = new RowCutter(ASKED_WORDS);
      const params = { from, count: Math.min(SCAN_ROWS, begin + count - from) };
      await this.#analytics.scan(sql, params, (bytes) => visit(cutter.cut(bytes)));
      cutter.end();
    }
  }
}
