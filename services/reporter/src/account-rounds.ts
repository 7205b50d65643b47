/** One account's round: mark, map, plan, verify, send. */
import type { ControlStore } from "@tallyhouse/domain";
import type { Clock, Logger } from "@tallyhouse/runtime";
import type { AccountKey, Feed } from "./account.ts";
import { type Backoff, createBackoff } from "./backoff.ts";
import { countMarks, type DueWindow, markChanged } from "./due-marks.ts";
import { mapCustomers } from "./map-customers.ts";
import { mapMeters, mappedFeeds } from "./map-meters.ts";
import type { AccountState, ReporterMetrics } from "./metrics.ts";
import { createPacer, type Pacer } from "./pacer.ts";
import { planFeed } from "./plan.ts";
import { sendRound, type SendSummary } from "./send.ts";
import { countUnfinished } from "./send-ledger.ts";
import type { StripeApi } from "./stripe/stripe-api.ts";
import type { UsageTotals } from "./usage-totals.ts";
import { verifyRound } from "./verify.ts";

/** What is constant for one account. */
export interface AccountSettings {
  readonly key: AccountKey;
  readonly sendRatePerSecond: number;
  readonly callRatePerSecond: number;
  readonly concurrencyMax: number;
  readonly latenessMs: number;
  readonly settleMs: number;
  readonly bookingWindowMs: number;
  readonly isAutoMapped: boolean;
}

interface Parts {
  readonly stripe: StripeApi;
  readonly control: ControlStore;
  readonly totals: UsageTotals;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly metrics: ReporterMetrics;
}

/** One account with what it remembers between rounds: permissions, delays, whether it is stopped. */
export class Account {
  readonly key: AccountKey;
  readonly #settings: AccountSettings;
  readonly #parts: Parts;
  readonly #sendPacer: Pacer;
  readonly #callPacer: Pacer;
  readonly #backoff: Backoff;
  readonly #stop = { untilAt: 0 };
  state: AccountState = { unfinished: new Map(), marks: null, isStopped: false };

  constructor(settings: AccountSettings, parts: Parts) {
    this.key = settings.key;
    this.#settings = settings;
    this.#parts = parts;
    const { clock, random } = parts;
    this.#sendPacer = createPacer({ ratePerSecond: settings.sendRatePerSecond, clock });
    this.#callPacer = createPacer({ ratePerSecond: settings.callRatePerSecond, clock });
    this.#backoff = createBackoff({ clock, random });
  }

  /**
   * Marks what changed, maps what lacks a counterpart, plans what is due.
   * @returns the number of rows planned.
   */
  async plan(input: { feeds: readonly Feed[]; watermarkAt: number; signal: AbortSignal }): Promise<number> {
    const { control, clock, log, metrics, stripe, totals } = this.#parts;
    const { key: account, bookingWindowMs, isAutoMapped } = this.#settings;
    const { signal, watermarkAt } = input;
    const feeds = input.feeds.filter((feed) => feed.mode === account.mode);
    await markChanged({ account, feeds, totals, control, watermarkAt, bookingWindowMs });
    const window = this.#window(watermarkAt);
    if (isAutoMapped) {
      await mapMeters({ account, feeds, stripe, control, nowAt: clock.now(), log });
      await mapCustomers({ account, stripe, control, pacer: this.#callPacer, clock, window, log, signal });
    }
    let planned = 0;
    for (const feed of await mappedFeeds(control, account, feeds)) {
      if (signal.aborted) break;
      planned += await planFeed({ account, feed, totals, control, window });
    }
    metrics.planned(account, planned);
    return planned;
  }

  /** Reads back what is in doubt, then sends what may be sent. */
  async deliver(input: { pagesUntilAt: number; signal: AbortSignal }): Promise<SendSummary> {
    const { control, clock, metrics, random, stripe } = this.#parts;
    const { key: account, settleMs, concurrencyMax } = this.#settings;
    const { signal } = input;
    // First, so that rows proven absent are repeated in this round.
    const verified = await verifyRound({ account, stripe, control, pacer: this.#callPacer, clock, settleMs, signal });
    metrics.verified(account, verified);
    const summary = await sendRound(
      {
        account,
        stripe,
        control,
        pacer: this.#sendPacer,
        backoff: this.#backoff,
        clock,
        random,
        concurrencyMax,
        stop: this.#stop,
        pagesUntilAt: input.pagesUntilAt,
      },
      signal,
    );
    metrics.sent(account, summary);
    return summary;
  }

  /** Counts what waits, for metrics and status. */
  async observe(watermarkAt: number | null): Promise<void> {
    const { control, clock, metrics } = this.#parts;
    const unfinished = await countUnfinished(control, this.key);
    const marks =
      watermarkAt === null ? null : await countMarks(control, { account: this.key, window: this.#window(watermarkAt) });
    this.state = { unfinished, marks, isStopped: clock.now() < this.#stop.untilAt };
    metrics.state(this.key, this.state);
  }

  /** When the first row that failed may be tried again; null when none waits. */
  retryAt(): number | null {
    const nextAt = this.#backoff.nextAt();
    return nextAt === null ? null : Math.max(nextAt, this.#stop.untilAt);
  }

  close(): void {
    this.#parts.stripe.close();
  }

  #window(watermarkAt: number): DueWindow {
    return { watermarkAt, latenessMs: this.#settings.latenessMs, nowAt: this.#parts.clock.now() };
  }
}
