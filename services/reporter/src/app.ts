import { type AnalyticsStore, type ControlStore, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { type Clock, type Component, type Logger, pause, type Registry } from "@tallyhouse/runtime";
import { Account } from "./account-rounds.ts";
import type { ReporterConfig } from "./config.ts";
import type { WaitingMarks } from "./due-marks.ts";
import { createReporterMetrics } from "./metrics.ts";
import { createStripeApi, type StripeApi } from "./stripe/stripe-api.ts";
import { createUnbilled, type Unbilled } from "./unbilled/unbilled.ts";
import { createUsageTotals, type UsageTotals } from "./usage-totals.ts";

export { type ReporterConfig, ReporterConfigSchema } from "./config.ts";
export { buildStatements, type Statements, type StatementsSummary } from "./statements/statements.ts";

/** Of Stripe's 1,000 meter events a second in live mode and 25 operations in test mode; the rest is for other calls. */
const SEND_RATES: Record<Mode, number> = { live: 800, test: 15 };
/** Of Stripe's 25 calls a second per endpoint in live mode; in test mode beside the sends. Another send rate scales them. */
const CALL_RATES: Record<Mode, number> = { live: 20, test: 5 };
/** Least time between two rounds, and how soon a failed round is repeated. */
const ROUND_PAUSE_MIN_MS = 500;
/** Planning without success for this many intervals makes the reporter unready: a round that hangs. */
const STALE_INTERVALS = 5;
/** Rounds that do nothing but fail make it unready after this time: within 30 s of an outage that a round meets. */
const FAILING_MAX_MS = 20_000;

/** What the reporter needs. `stripe` replaces the official client; by default each key opens one. */
export interface ReporterPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly clock: Clock;
  /** In [0, 1): jitter. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Registry;
  readonly stripe?: (account: { mode: Mode; secretKey: string }) => StripeApi;
}

/** What one round over all accounts did. */
export interface RoundSummary {
  /** Ledger rows written. */
  readonly planned: number;
  /** Calls answered, and how many of their rows are accepted now. */
  readonly sent: number;
  readonly accepted: number;
}

/** A picture of the reporter in memory, as of its last round. */
export interface ReporterStatus {
  /** Whether planning succeeded within the last 5 intervals, and rounds have not been failing for 20 s. */
  readonly isReady: boolean;
  /** The watermark; null while a partition has no progress. */
  readonly watermarkAt: number | null;
  /** When planning last succeeded; null before the first time. */
  readonly plannedAt: number | null;
  /** Modes whose usage is counted but, for want of a key, not reported. */
  readonly modesWithoutKey: readonly Mode[];
  readonly accounts: readonly {
    readonly mode: Mode;
    readonly isStopped: boolean;
    /** Rows by state: planned, sending, unknown, rejected_sync, quarantined. */
    readonly unfinishedRows: Readonly<Record<string, number>>;
    readonly waitingBuckets: WaitingMarks | null;
  }[];
}

export interface Reporter extends Component {
  /**
   * Plans, verifies and sends once, without regard to the interval; rows in back-off stay for a later round.
   * Rounds never overlap: a second call waits for the first.
   * @throws {TallyhouseError} STORE_UNAVAILABLE; the next round goes on where this one ended.
   */
  runOnce(): Promise<RoundSummary>;
  status(): ReporterStatus;
}

/** Wires the reporter; opens nothing but, per key, a Stripe client without a connection. */
export function buildReporter(config: ReporterConfig, ports: ReporterPorts): Reporter {
  return new ReporterService(config, ports);
}

class ReporterService implements Reporter {
  readonly name = "reporter";
  readonly #config: ReporterConfig;
  readonly #ports: ReporterPorts;
  readonly #metrics: ReturnType<typeof createReporterMetrics>;
  readonly #totals: UsageTotals;
  readonly #unbilled: Unbilled;
  readonly #accounts: readonly Account[];
  readonly #modesWithoutKey: readonly Mode[];
  readonly #startedAt: number;
  #watermarkAt: number | null = null;
  #plannedAt: number | null = null;
  /** When the first round failed after the last that did not. */
  #failingSinceAt: number | null = null;
  /** The round in progress; the next one begins when it has ended. */
  #round: Promise<unknown> = Promise.resolve();

  constructor(config: ReporterConfig, ports: ReporterPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#metrics = createReporterMetrics(ports.metrics);
    this.#totals = createUsageTotals(ports.analytics, config.stream);
    this.#unbilled = createUnbilled({
      ...ports,
      totals: this.#totals,
      bookingWindowMs: config.stream.bookingWindowSeconds * 1_000,
    });
    const keys: Record<Mode, string | undefined> = {
      live: config.STRIPE_LIVE_SECRET_KEY,
      test: config.STRIPE_TEST_SECRET_KEY,
    };
    const modes: readonly Mode[] = ["live", "test"];
    this.#accounts = modes.flatMap((mode) => {
      const secretKey = keys[mode];
      return secretKey === undefined ? [] : [this.#openAccount(mode, secretKey)];
    });
    this.#modesWithoutKey = modes.filter((mode) => keys[mode] === undefined);
    this.#startedAt = ports.clock.now();
  }

  #openAccount(mode: Mode, secretKey: string): Account {
    const { clock, control, logger, random } = this.#ports;
    const config = this.#config;
    const { STRIPE_API_URL: apiUrl, SEND_CONCURRENCY_MAX: connectionsMax } = config;
    const sendRatePerSecond = config.SEND_RATE_PER_SECOND ?? SEND_RATES[mode];
    const callRatePerSecond = config.CALL_RATE_PER_SECOND ?? (CALL_RATES[mode] * sendRatePerSecond) / SEND_RATES[mode];
    const open = this.#ports.stripe ?? ((account) => createStripeApi({ ...account, apiUrl, connectionsMax }));
    return new Account(
      {
        // Rows meant for an emulator are never sent to Stripe, nor the other way round.
        key: { mode, stripeAccount: apiUrl === undefined ? "stripe" : "emulator" },
        sendRatePerSecond,
        callRatePerSecond,
        concurrencyMax: config.SEND_CONCURRENCY_MAX,
        latenessMs: config.REPORT_LATENESS_SECONDS * 1_000,
        settleMs: config.VERIFY_SETTLE_SECONDS * 1_000,
        bookingWindowMs: config.stream.bookingWindowSeconds * 1_000,
        isAutoMapped: config.REPORT_AUTO_MAP,
      },
      {
        stripe: open({ mode, secretKey }),
        control,
        totals: this.#totals,
        clock,
        random,
        log: logger.child({ mode }),
        metrics: this.#metrics,
      },
    );
  }

  async run(signal: AbortSignal): Promise<void> {
    let planDueAt = 0;
    while (!signal.aborted) {
      const isPlanDue = this.#ports.clock.now() >= planDueAt;
      if (isPlanDue) planDueAt = this.#ports.clock.now() + this.#config.REPORT_INTERVAL_MS;
      try {
        await this.#exclusive(() => this.#runRound({ isPlanDue, pagesUntilAt: planDueAt, signal }));
        this.#failingSinceAt = null;
      } catch (error) {
        // An outage: everything done is committed, the next round goes on. Anything else ends the process.
        if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
        this.#metrics.roundFailed();
        this.#failingSinceAt ??= this.#ports.clock.now();
        this.#ports.logger.warn({ err: error }, "a round ended early");
        planDueAt = Math.min(planDueAt, this.#ports.clock.now() + ROUND_PAUSE_MIN_MS);
      }
      const wakeAt = Math.min(planDueAt, ...this.#accounts.flatMap((account) => account.retryAt() ?? []));
      const pauseMinMs = Math.min(ROUND_PAUSE_MIN_MS, this.#config.REPORT_INTERVAL_MS);
      await pause(Math.max(pauseMinMs, wakeAt - this.#ports.clock.now()), signal);
    }
  }

  runOnce(): Promise<RoundSummary> {
    const signal = new AbortController().signal;
    return this.#exclusive(() => this.#runRound({ isPlanDue: true, pagesUntilAt: Infinity, signal }));
  }

  status(): ReporterStatus {
    const now = this.#ports.clock.now();
    const isFailing = this.#failingSinceAt !== null && now - this.#failingSinceAt >= FAILING_MAX_MS;
    const staleAt = (this.#plannedAt ?? this.#startedAt) + STALE_INTERVALS * this.#config.REPORT_INTERVAL_MS;
    return {
      isReady: now < staleAt && !isFailing,
      watermarkAt: this.#watermarkAt,
      plannedAt: this.#plannedAt,
      modesWithoutKey: this.#modesWithoutKey,
      accounts: this.#accounts.map(({ key, state }) => ({
        mode: key.mode,
        isStopped: state.isStopped,
        unfinishedRows: Object.fromEntries(state.unfinished),
        waitingBuckets: state.marks,
      })),
    };
  }

  async close(): Promise<void> {
    for (const account of this.#accounts) account.close();
  }

  #exclusive<Result>(round: () => Promise<Result>): Promise<Result> {
    const next = this.#round.then(round);
    this.#round = next.catch(() => undefined);
    return next;
  }

  async #runRound(input: { isPlanDue: boolean; pagesUntilAt: number; signal: AbortSignal }): Promise<RoundSummary> {
    const { clock } = this.#ports;
    let planned = 0;
    if (input.isPlanDue) planned = await this.#plan(input.signal);
    const summaries = await allEnded(this.#accounts.map((account) => account.deliver(input)));
    for (const account of this.#accounts) await account.observe(this.#watermarkAt);
    if (input.isPlanDue && this.#watermarkAt !== null) this.#plannedAt = clock.now();
    return {
      planned,
      sent: summaries.reduce((sum, summary) => sum + summary.sent, 0),
      accepted: summaries.reduce((sum, summary) => sum + summary.accepted, 0),
    };
  }

  async #plan(signal: AbortSignal): Promise<number> {
    // Read first: a total read after W holds at least all usage booked before it.
    const watermarkAt = await this.#totals.sealedThrough();
    this.#watermarkAt = watermarkAt;
    this.#metrics.watermark(watermarkAt === null ? null : (this.#ports.clock.now() - watermarkAt) / 1_000);
    const feeds = await this.#totals.feeds();
    this.#metrics.meters(feeds, this.#modesWithoutKey);
    if (watermarkAt === null) return 0;
    let planned = 0;
    for (const account of this.#accounts) {
      planned += await account.plan({ feeds: feeds.reported, watermarkAt, signal });
    }
    await this.#unbilled.look(watermarkAt);
    return planned;
  }
}

/** Waits for all, also after a failure: no call of a round may outlive it. Then throws the first failure. */
async function allEnded<Result>(works: readonly Promise<Result>[]): Promise<Result[]> {
  const ended = await Promise.allSettled(works);
  return ended.map((end) => {
    if (end.status === "rejected") throw end.reason;
    return end.value;
  });
}
