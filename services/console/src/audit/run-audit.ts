/** Runs the checks against a live deployment or a closed one, and says what differs. Decides nothing: the SQL does. */
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import {
  controlsStatement,
  copiedStatement,
  copiesStatement,
  countedStatement,
  dedupeStatement,
  digestsStatement,
  holesStatement,
  identitiesStatement,
  reachStatement,
  redirectsStatement,
  type Run,
  voidsStatement,
} from "./audit-checks.ts";
import { type AuditCut, type AuditedStream, readLogEnds, takeCut } from "./audit-cut.ts";
import { meterStatements, unknownMetersStatement } from "./audit-meter.ts";
import { readSlices, type Slice } from "./audit-slices.ts";

/** The checks, in the order they run; docs/runbooks/audit.md has a section for each. */
export const AUDIT_CHECKS = ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8"] as const;
export type AuditCheck = (typeof AUDIT_CHECKS)[number];

/** What one check found. */
export interface CheckResult {
  readonly check: AuditCheck;
  /** Stored rows below the cut that the check read at least once. */
  readonly rows: number;
  readonly differences: number;
  readonly seconds: number;
  /** The first differing rows, at most {@link EXAMPLES_MAX}, as the statement returned them. */
  readonly examples: readonly Readonly<Record<string, unknown>>[];
  /** The statement that found the first of them, to run by hand; null when nothing differs. */
  readonly statement: string | null;
}

/** One audit: the prefix it judged, and the checks that ran. */
export interface AuditReport {
  readonly isClean: boolean;
  /** Partition → next offset: records below it were judged. */
  readonly cut: Readonly<Record<string, number>>;
  readonly checks: readonly CheckResult[];
}

export interface AuditPorts {
  readonly analytics: AnalyticsStore;
  /** Only its bounds are asked. */
  readonly log: Pick<EventLog, "bounds" | "partitionCount">;
}

const EXAMPLES_MAX = 20;
/** Half a million offsets, of some 400 bytes each where they are compared row by row. */
const RUNS_PER_STATEMENT = 32;
/** Raw and rollup rows of one statement: a few seconds of one core. Where every row is a key of its own they take some 500 bytes each. */
const ROWS_PER_SLICE = 1_000_000;
/** Grouping and sorting beyond this much memory go to the server's disk. */
const SPILL_BYTES = 268_435_456;
/** What one statement may hold; beyond it the statement fails and the audit with it. A million rollup rows of a slice need a quarter. */
const MEMORY_BYTES_MAX = 2_147_483_648;
/** On cores that are busy with other work; over HTTP the client's own limit of some 60 s holds. */
const STATEMENT_SECONDS_MAX = 600;
const LIMITS = `max_bytes_before_external_group_by = ${SPILL_BYTES}, max_bytes_before_external_sort = ${SPILL_BYTES},
  max_memory_usage = ${MEMORY_BYTES_MAX}, max_execution_time = ${STATEMENT_SECONDS_MAX}`;
/** For a partition that restarts: a takeover and a rebuild of its index. */
const REDIRECT_WAIT_MS = 60_000;
const REDIRECT_POLL_MS = 250;

export interface AuditInput {
  readonly stream: AuditedStream;
  /** All of them when absent. */
  readonly checks?: readonly AuditCheck[];
  /** How long A7 may wait for a partition that lags behind its log; 0 where nobody folds. */
  readonly redirectWaitMs?: number;
  /** How many rows one statement looks at, about; {@link ROWS_PER_SLICE} when absent. */
  readonly rowsPerSlice?: number;
  readonly signal?: AbortSignal;
  /** Told before each check, and before each of its statements once it is known how many there are. */
  readonly onProgress?: (progress: AuditProgress) => void;
}

/** Where a running audit is: in which check, and how many of its statements have run. */
export interface AuditProgress {
  readonly check: AuditCheck;
  readonly done: number;
  readonly statements: number;
}

/**
 * Runs the checks in turn, one statement at a time. Changes nothing.
 * @throws {TallyhouseError} STORE_UNAVAILABLE, LOG_UNAVAILABLE (retry): nothing can be said then.
 */
export async function runAudit(ports: AuditPorts, input: AuditInput): Promise<AuditReport> {
  const { stream, checks = AUDIT_CHECKS, redirectWaitMs = REDIRECT_WAIT_MS, signal, onProgress } = input;
  const cut = await takeCut(ports.analytics, stream);
  const sizes = await readSizes(ports.analytics, cut, input.rowsPerSlice ?? ROWS_PER_SLICE);
  const results: CheckResult[] = [];
  for (const check of checks) {
    signal?.throwIfAborted();
    onProgress?.({ check, done: 0, statements: 1 });
    results.push(await runCheck(ports, { check, cut, sizes, redirectWaitMs, signal, onProgress }));
  }
  return {
    isClean: results.every(({ differences }) => differences === 0),
    cut: Object.fromEntries(cut.partitions.map(({ partition, nextOffset }) => [partition, nextOffset])),
    checks: results,
  };
}

interface Sizes {
  readonly raw: number;
  readonly rollup: number;
  readonly controls: number;
  /** All customers, in parts for one statement each. */
  readonly slices: readonly Slice[];
}

interface CheckInput {
  readonly check: AuditCheck;
  readonly cut: AuditCut;
  readonly sizes: Sizes;
  readonly redirectWaitMs: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: AuditInput["onProgress"];
}

type Found = Omit<CheckResult, "check" | "seconds" | "rows">;

async function runCheck(ports: AuditPorts, input: CheckInput): Promise<CheckResult> {
  const { check, sizes } = input;
  const startedAt = performance.now();
  const rows = rowsOf(check, sizes);
  const found = await find(ports, input);
  return { check, rows, ...found, seconds: (performance.now() - startedAt) / 1_000 };
}

function rowsOf(check: AuditCheck, sizes: Sizes): number {
  if (check === "A4" || check === "A6") return sizes.raw + sizes.rollup;
  return check === "A8" ? sizes.controls : sizes.raw;
}

async function find(ports: AuditPorts, input: CheckInput): Promise<Found> {
  const { check, cut, sizes } = input;
  if (check === "A6") return findBeyondLog(ports, cut);
  // Nothing was folded yet, so nothing can differ.
  if (cut.partitions.length === 0) return NOTHING;
  const all = (statements: readonly string[]): Promise<Found> => findAll(ports.analytics, statements, input);
  switch (check) {
    case "A1":
      return all([holesStatement(cut)]);
    case "A2": {
      const copied = await suspectedRuns(ports.analytics, copiedStatement(cut));
      return all(copied.map((runs) => copiesStatement(cut, runs)));
    }
    case "A3":
      return all(sizes.slices.map((slice) => dedupeStatement(cut, slice)));
    case "A4": {
      const ofMeters = cut.meters.flatMap((meter) =>
        sizes.slices.flatMap((slice) => meterStatements(cut, meter, slice)),
      );
      return all([unknownMetersStatement(cut), ...ofMeters]);
    }
    case "A5": {
      const suspected = await suspectedRuns(ports.analytics, digestsStatement(cut));
      return all([countedStatement(cut), ...suspected.map((runs) => identitiesStatement(cut, runs))]);
    }
    case "A7":
      return findLostRedirects(ports, input);
    case "A8":
      return all([voidsStatement(cut), controlsStatement(cut)]);
  }
}

const NOTHING: Found = { differences: 0, examples: [], statement: null };

/** How much there is to read: decides into how many statements a check is cut. */
async function readSizes(analytics: AnalyticsStore, { stream }: AuditCut, rowsPerSlice: number): Promise<Sizes> {
  const count = async (table: string): Promise<number> => {
    const [row] = await analytics.select<{ rows: string }>(
      `SELECT toString(count()) AS rows FROM ${table} WHERE stream = {stream:UInt16}`,
      { stream: stream.streamId },
    );
    return Number(row?.rows ?? 0);
  };
  const streams = [stream.streamId, ...stream.predecessors.map(({ streamId }) => streamId)];
  const slices = await readSlices(analytics, { streams, rowsPerSlice });
  return {
    raw: await count("raw_events"),
    rollup: await count("rollup"),
    controls: await count("control_records"),
    slices,
  };
}

/** Runs of offsets that must be compared row by row, for one statement each. */
async function suspectedRuns(analytics: AnalyticsStore, statement: string): Promise<Run[][]> {
  const runs = await analytics.select<Run>(`${statement} SETTINGS ${LIMITS}`);
  const statements = Math.ceil(runs.length / RUNS_PER_STATEMENT);
  return Array.from({ length: statements }, (_, n) => runs.slice(n * RUNS_PER_STATEMENT, (n + 1) * RUNS_PER_STATEMENT));
}

async function findAll(
  analytics: AnalyticsStore,
  statements: readonly string[],
  { check, signal, onProgress }: Pick<CheckInput, "check" | "signal" | "onProgress">,
): Promise<Found> {
  let found = NOTHING;
  for (const [index, statement] of statements.entries()) {
    signal?.throwIfAborted();
    onProgress?.({ check, done: index, statements: statements.length });
    found = joined(found, await findOne(analytics, statement));
  }
  return found;
}

/** Counts in the engine and brings back only the first rows: a broken deployment may differ in millions. */
async function findOne(analytics: AnalyticsStore, statement: string): Promise<Found> {
  const [row] = await analytics.select<{ differences: string; examples: readonly string[] }>(
    `SELECT toString(count()) AS differences, groupArray(${EXAMPLES_MAX})(formatRowNoNewline('JSONEachRow', *)) AS examples
     FROM (${statement})
     SETTINGS ${LIMITS}`,
  );
  const differences = Number(row?.differences ?? 0);
  if (row === undefined || differences === 0) return NOTHING;
  const examples = row.examples.map((text) => JSON.parse(text) as Readonly<Record<string, unknown>>);
  return { differences, examples, statement: statement.trim() };
}

function joined(a: Found, b: Found): Found {
  return {
    differences: a.differences + b.differences,
    examples: [...a.examples, ...b.examples].slice(0, EXAMPLES_MAX),
    statement: a.statement ?? b.statement,
  };
}

/** A6. The tables first, then the log's end, which only grows: nothing that is folded in between can look as if it were beyond. */
async function findBeyondLog({ analytics, log }: AuditPorts, { stream }: AuditCut): Promise<Found> {
  const statement = reachStatement(stream.streamId);
  const reached = await analytics.select<Record<"partition" | "reach" | "place", string>>(statement);
  const ends = await readLogEnds(log);
  const examples = reached
    .map((row) => ({ ...row, logEnd: String(ends[Number(row.partition)] ?? 0) }))
    .filter(({ reach, logEnd }) => BigInt(reach) > BigInt(logEnd));
  return { differences: examples.length, examples, statement: examples.length === 0 ? null : statement.trim() };
}

/**
 * A7. What looks lost may only not be folded yet: then the log's ends are noted, and once a partition is folded up to there, a copy that
 * was in it at the cut has its row. A partition that does not come so far in time is left to the next audit.
 */
async function findLostRedirects({ analytics, log }: AuditPorts, input: CheckInput): Promise<Found> {
  const { cut, sizes, signal, redirectWaitMs } = input;
  const ask = (folded: readonly number[]): Promise<Found> =>
    findAll(
      analytics,
      sizes.slices.map((slice) => redirectsStatement(cut, slice, folded)),
      input,
    );
  const all = Array.from({ length: cut.stream.partitionCount }, (_, partition) => partition);
  const suspected = await ask(all);
  if (suspected.differences === 0) return suspected;
  const ends = await readLogEnds(log);
  const giveUpAt = performance.now() + redirectWaitMs;
  for (;;) {
    const { partitions } = await takeCut(analytics, cut.stream);
    const folded = partitions.filter(({ partition, nextOffset }) => nextOffset >= (ends[partition] ?? 0));
    if (folded.length === all.length || performance.now() >= giveUpAt || signal?.aborted === true) {
      return ask(folded.map(({ partition }) => partition));
    }
    await pause(REDIRECT_POLL_MS, signal);
  }
}
