/** Statements: seals what is due, rates closed periods anew where their usage changed, brings the lines to the analysts. */
import { type AnalyticsStore, type ControlStore, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { type Clock, type Component, type Logger, pause, type Registry } from "@tallyhouse/runtime";
import { cutOf, readWatermark } from "@tallyhouse/usage";
import type { ReporterConfig } from "../config.ts";
import { type StatementPorts, SealingRound, type StatementSettings } from "./context.ts";
import { writeRatedLines } from "./rated-lines.ts";
import { lookForLateUsage } from "./rerate-look.ts";
import { rerateWaiting } from "./rerate-round.ts";
import { beginPass, sealDue, type SealPass } from "./seal-round.ts";
import { createStatementMetrics } from "./statement-metrics.ts";
import { hasWaitingRerates } from "./statement-writes.ts";

/** How soon a request to rate anew is noticed; a round that finds nothing asks three small questions. */
const POLL_MS = 5_000;

const MODES: readonly Mode[] = ["live", "test"];

/** What one round did. */
export interface StatementsSummary {
  readonly sealed: number;
  readonly adjusted: number;
  /** Statements whose lines were written. */
  readonly lined: number;
  /** Whether there is more to do at once. */
  readonly hasMore: boolean;
}

/** Needs no Stripe: a part of the reporter's process with a loop of its own, so that neither holds up the other. */
export interface Statements extends Component {
  /** One round, without regard to the interval. @throws {TallyhouseError} STORE_UNAVAILABLE; the next round goes on. */
  runOnce(): Promise<StatementsSummary>;
}

/** Opens nothing. One process at a time, like the reporter. */
export function buildStatements(
  config: Pick<ReporterConfig, "CLOSE_LATENESS_SECONDS" | "RERATE_INTERVAL_SECONDS" | "REPORT_INTERVAL_MS"> & {
    readonly stream: StatementSettings["stream"];
  },
  ports: {
    readonly analytics: AnalyticsStore;
    readonly control: ControlStore;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Registry;
  },
): Statements {
  const metrics = createStatementMetrics(ports.metrics);
  const settings: StatementSettings = {
    stream: config.stream,
    latenessSeconds: config.CLOSE_LATENESS_SECONDS,
    rerateIntervalSeconds: config.RERATE_INTERVAL_SECONDS,
  };
  return new StatementsService({ ...ports, metrics }, settings, Math.min(POLL_MS, config.REPORT_INTERVAL_MS));
}

/** What is remembered of a mode between rounds; a restart begins anew and finds everything sealed in the store. */
interface Progress {
  pass: SealPass | null;
  /** The booking window of the watermark at which the last pass over all customers began: no cut can be due before the next one. */
  passedAt: number;
}

class StatementsService implements Statements {
  readonly name = "statements";
  readonly #ports: StatementPorts;
  readonly #settings: StatementSettings;
  readonly #pollMs: number;
  readonly #progress = new Map<Mode, Progress>();

  constructor(ports: StatementPorts, settings: StatementSettings, pollMs: number) {
    this.#ports = ports;
    this.#settings = settings;
    this.#pollMs = pollMs;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let hasMore = false;
      try {
        ({ hasMore } = await this.#round(signal));
      } catch (error) {
        // An outage: everything done is committed, the next round goes on. Anything else ends the process.
        if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
        this.#ports.metrics.roundFailed();
        this.#ports.logger.warn({ err: error }, "a round of statements ended early");
      }
      if (!hasMore) await pause(this.#pollMs, signal);
    }
  }

  runOnce(): Promise<StatementsSummary> {
    return this.#round(new AbortController().signal);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #round(signal: AbortSignal): Promise<StatementsSummary> {
    const { analytics } = this.#ports;
    // What a crash left between a statement and its lines.
    let lined = await writeRatedLines(this.#ports, signal);
    let sealed = 0;
    let adjusted = 0;
    let hasMore = false;
    const watermarkAt = await readWatermark(analytics, this.#settings.stream);
    for (const mode of MODES) {
      const progress = this.#progress.get(mode) ?? { pass: null, passedAt: Number.NEGATIVE_INFINITY };
      this.#progress.set(mode, progress);
      const bookingAt = watermarkAt === null ? Number.NEGATIVE_INFINITY : cutOf(watermarkAt, this.#settings.stream);
      const isPassDue = progress.pass !== null || bookingAt > progress.passedAt;
      if (!isPassDue && !(await hasWaitingRerates(this.#ports.control, mode))) continue;
      const round = await SealingRound.open(mode, { ports: this.#ports, settings: this.#settings });
      if (round === null) continue;
      // The look first: whatever is sealed behind it was cut before its end, and is marked by that. The other way round the first
      // look, which looks at nothing, would pass over what was booked since the cut of a statement made a moment before.
      const lookedToAt = await lookForLateUsage(round);
      if (isPassDue) {
        sealed += await this.#seal(round, progress, { bookingAt, signal });
        hasMore ||= progress.pass !== null;
      }
      adjusted += await rerateWaiting(round, lookedToAt, signal);
    }
    if (sealed + adjusted > 0) lined += await writeRatedLines(this.#ports, signal);
    return { sealed, adjusted, lined, hasMore };
  }

  async #seal(
    round: SealingRound,
    progress: Progress,
    { bookingAt, signal }: { readonly bookingAt: number; readonly signal: AbortSignal },
  ): Promise<number> {
    if (progress.pass === null) {
      progress.pass = beginPass();
      progress.passedAt = bookingAt;
    }
    const { pass } = progress;
    const before = pass.sealed;
    if (await sealDue(round, pass, signal)) {
      const { oldestCutAt, unsealed: byReason } = pass;
      const oldestSeconds = oldestCutAt === null ? 0 : (round.sealed.watermarkAt - oldestCutAt) / 1_000;
      this.#ports.metrics.unsealed(round.mode, { byReason, oldestSeconds });
      progress.pass = null;
    }
    return pass.sealed - before;
  }
}
