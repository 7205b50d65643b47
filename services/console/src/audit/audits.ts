/** Audits as a part of the console: one at a time, each with its row in PostgreSQL; one a day by itself. */
import { DAY_MS, HOUR_MS, TallyhouseError } from "@tallyhouse/domain";
import { type Clock, type Component, Counter, Gauge, type Logger, pause, type Registry } from "@tallyhouse/runtime";
import type { ControlStore } from "@tallyhouse/domain";
import type { AuditedStream } from "./audit-cut.ts";
import { type AuditRow, claimAudit, finishAudit, insertAudit, listAudits } from "./audit-rows.ts";
import { AUDIT_CHECKS, type AuditCheck, type AuditPorts, type AuditProgress, runAudit } from "./run-audit.ts";

export interface AuditsPorts extends AuditPorts {
  readonly control: ControlStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Registry;
}

export interface Audits extends Component {
  /** Begins an audit and returns at once; null when this console runs one already. `done` never rejects. */
  begin(checks: readonly AuditCheck[]): Promise<{ readonly id: string; readonly done: Promise<void> } | null>;
  /** The newest audits, newest first; one that this console runs with its place. */
  list(): Promise<readonly ListedAudit[]>;
}

/** An audit as listed. */
export interface ListedAudit extends AuditRow {
  /** Where it is; null unless this console is running it. */
  readonly progress: AuditProgress | null;
}

/** How often the console looks whether the day's audit is due, and shows in its metrics what any console found. */
const POLL_MS = 30_000;
/** How long a stop waits for the row of an audit that it ended. */
const CLOSE_WAIT_MS = 2_000;

/** @param config.hour UTC hour of the daily audit, null for none. A console that was away then makes up for it. */
export function createAudits(
  config: { readonly stream: AuditedStream; readonly hour: number | null },
  ports: AuditsPorts,
): Audits {
  const { control, clock, logger } = ports;
  const startedAt = clock.now();
  const metrics = createAuditMetrics(ports.metrics);
  const stopper = new AbortController();
  let running: Promise<void> | null = null;
  let place: { readonly id: string; readonly progress: AuditProgress } | null = null;

  const beginWith = async (takeRow: () => Promise<AuditRow | null>) => {
    if (running !== null) return null;
    const taken = Promise.withResolvers<void>();
    // Before the row: a second caller must find this one while its row is written.
    running = taken.promise;
    try {
      const row = await takeRow();
      if (row === null) return null;
      const done = perform(row, {
        stream: config.stream,
        ports,
        signal: stopper.signal,
        failed: metrics.failed,
        onProgress: (progress) => {
          place = { id: row.id, progress };
        },
      });
      void done.finally(taken.resolve);
      return { id: row.id, done };
    } finally {
      void running.finally(() => {
        running = null;
        place = null;
      });
    }
  };

  const poll = async (): Promise<void> => {
    const now = clock.now();
    const hasEarlier = (await listAudits(control)).some(({ isScheduled }) => isScheduled);
    if (config.hour !== null && isDue({ now, startedAt, hour: config.hour, hasEarlier })) {
      const dayText = new Date(now).toISOString().slice(0, 10);
      const begun = await beginWith(() => claimAudit(control, { day: dayText, wanted: AUDIT_CHECKS, at: now }));
      await begun?.done;
    }
    metrics.show(await listAudits(control));
  };

  return {
    name: "console audits",
    begin: (checks) => beginWith(() => insertAudit(control, checks, clock.now())),
    async list() {
      const rows = await listAudits(control);
      return rows.map((row) => ({ ...row, progress: place?.id === row.id ? place.progress : null }));
    },
    async run(signal) {
      signal.addEventListener("abort", () => stopper.abort());
      while (!signal.aborted) {
        try {
          await poll();
        } catch (error) {
          if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
          logger.warn({ code: error.code, err: error }, "the day's audit waits: will be tried again");
        }
        await pause(POLL_MS, signal);
      }
    },
    async close() {
      stopper.abort();
      // An audit ends between two statements and changes nothing. A long statement is left to the store, which waits for its own.
      await Promise.race([running, pause(CLOSE_WAIT_MS)]);
    },
  };
}

/**
 * Whether the audit of the UTC day is due at `now`. A console that was away at the hour makes up for it; one that starts for the first
 * time, after that hour, has missed nothing.
 */
export function isDue(at: {
  readonly now: number;
  readonly startedAt: number;
  readonly hour: number;
  readonly hasEarlier: boolean;
}): boolean {
  const dueAt = Math.floor(at.now / DAY_MS) * DAY_MS + at.hour * HOUR_MS;
  return at.now >= dueAt && (at.hasEarlier || at.startedAt <= dueAt);
}

interface Performance {
  readonly stream: AuditedStream;
  readonly ports: AuditsPorts;
  readonly signal: AbortSignal;
  readonly failed: Counter;
  readonly onProgress: (progress: AuditProgress) => void;
}

/** Runs the checks of a row and stores what they found. Never rejects. */
async function perform(row: AuditRow, { stream, ports, signal, failed, onProgress }: Performance): Promise<void> {
  const { control, clock, logger } = ports;
  try {
    const report = await runAudit(ports, { stream, checks: row.wanted, signal, onProgress });
    await finishAudit(control, row, { at: clock.now(), report });
    const differing = report.checks.filter(({ differences }) => differences > 0).map(({ check }) => check);
    if (differing.length > 0) logger.error({ audit: row.id, differing }, "stored rows differ: docs/runbooks/audit.md");
  } catch (error) {
    // An audit changes nothing, so it may end anywhere; what it cannot write stays `running` until it is taken over.
    failed.inc();
    logger.error({ audit: row.id, err: error }, "an audit could not run to its end");
    const failure = error instanceof Error ? error.message : String(error);
    await finishAudit(control, row, { at: clock.now(), failure }).catch((cause: unknown) => {
      logger.error({ audit: row.id, err: cause }, "nor could that be stored");
    });
  }
}

function createAuditMetrics(registry: Registry) {
  const registers = [registry];
  const succeeded = new Gauge({
    name: "tallyhouse_console_audit_success_timestamp_seconds",
    help: "When the last audit of all checks ended without a difference, by any console.",
    registers,
  });
  const differing = new Gauge({
    name: "tallyhouse_console_audit_differing_rows",
    help: "Rows that differed when the check ran last, by any console.",
    labelNames: ["check"],
    registers,
  });
  const seconds = new Gauge({
    name: "tallyhouse_console_audit_check_seconds",
    help: "How long the check took when it ran last.",
    labelNames: ["check"],
    registers,
  });
  const failed = new Counter({
    name: "tallyhouse_console_audit_failures",
    help: "Audits of this console that could not run to their end.",
    registers,
  });
  return {
    failed,
    /** Newest first, as listed. */
    show(rows: readonly AuditRow[]): void {
      for (const row of [...rows].reverse()) {
        if (row.checks === null || row.finishedAt === null) continue;
        const isWhole = AUDIT_CHECKS.every((check) => row.wanted.includes(check));
        if (isWhole && row.state === "clean") succeeded.set(row.finishedAt.getTime() / 1_000);
        for (const { check, differences, seconds: taken } of row.checks) {
          differing.set({ check }, differences);
          seconds.set({ check }, taken);
        }
      }
    },
  };
}
