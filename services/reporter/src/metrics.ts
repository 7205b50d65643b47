import { Counter, Gauge, type Registry } from "@tallyhouse/runtime";
import type { AccountKey } from "./account.ts";
import type { WaitingMarks } from "./due-marks.ts";
import type { SendSummary } from "./send.ts";
import type { FeedList } from "./usage-totals.ts";
import type { VerifySummary } from "./verify.ts";

/** What one account's round left behind. */
export interface AccountState {
  /** Rows by state, finished ones left out. */
  readonly unfinished: ReadonlyMap<string, number>;
  readonly marks: WaitingMarks | null;
  readonly isStopped: boolean;
}

/** The reporter's metrics; each name is registered once per registry. */
export interface ReporterMetrics {
  watermark(lagSeconds: number | null): void;
  /** Meters whose usage is counted but not reported, by reason. */
  meters(feeds: FeedList, modesWithoutKey: readonly string[]): void;
  planned(account: AccountKey, rows: number): void;
  sent(account: AccountKey, summary: SendSummary): void;
  verified(account: AccountKey, summary: VerifySummary): void;
  state(account: AccountKey, state: AccountState): void;
  roundFailed(): void;
}

const ROW_STATES = ["planned", "sending", "unknown", "rejected_sync", "quarantined"];

/** Registers the metrics. */
export function createReporterMetrics(registry: Registry): ReporterMetrics {
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[]): Gauge =>
    new Gauge({ name: `tallyhouse_reporter_${name}`, help, labelNames, registers });
  const counter = (name: string, help: string, labelNames: string[]): Counter =>
    new Counter({ name: `tallyhouse_reporter_${name}`, help, labelNames, registers });

  const lagGauge = gauge("watermark_lag_seconds", "Now less the watermark; -1 while a partition has no progress", []);
  const unreported = gauge("unreported_meters", "Meter versions counted but not reported", ["mode", "reason"]);
  const plannedRows = counter("planned_rows_total", "Ledger rows planned", ["mode"]);
  const sends = counter("sends_total", "Meter events sent, by outcome of stripe.md 3.5", ["mode", "outcome"]);
  const attempts = counter("network_attempts_total", "HTTP requests of those sends", ["mode"]);
  const retired = counter("retired_rows_total", "Rows given back to planning because they became too old", ["mode"]);
  const verdicts = counter("verdicts_total", "Readings of a row's minute at Stripe, by verdict", ["mode", "verdict"]);
  const rows = gauge("unfinished_rows", "Ledger rows without a fate, by state", ["mode", "state"]);
  const buckets = gauge("waiting_buckets", "Marked buckets: due, without mapping, too old for Stripe", [
    "mode",
    "kind",
  ]);
  const stopped = gauge("account_stopped", "1 while 401 or 403 keeps the account from sending", ["mode"]);
  const failures = counter("failed_rounds_total", "Rounds ended by an outage of a store", []);

  return {
    watermark: (lagSeconds) => lagGauge.set(lagSeconds ?? -1),
    meters(feeds, modesWithoutKey) {
      unreported.reset();
      for (const { mode } of feeds.leftOut) unreported.inc({ mode, reason: "aggregation" });
      for (const { mode } of feeds.reported) {
        if (modesWithoutKey.includes(mode)) unreported.inc({ mode, reason: "no_key" });
      }
    },
    planned: ({ mode }, count) => plannedRows.inc({ mode }, count),
    sent({ mode }, summary) {
      for (const [outcome, count] of summary.outcomes) sends.inc({ mode, outcome }, count);
      attempts.inc({ mode }, summary.networkAttempts);
      retired.inc({ mode }, summary.retired);
    },
    verified({ mode }, summary) {
      for (const [verdict, count] of summary) verdicts.inc({ mode, verdict }, count);
    },
    state({ mode }, state) {
      for (const name of ROW_STATES) rows.set({ mode, state: name }, state.unfinished.get(name) ?? 0);
      stopped.set({ mode }, state.isStopped ? 1 : 0);
      if (state.marks === null) return;
      buckets.set({ mode, kind: "due" }, state.marks.due);
      buckets.set({ mode, kind: "unmapped" }, state.marks.unmapped);
      buckets.set({ mode, kind: "too_old" }, state.marks.tooOld);
    },
    roundFailed: () => failures.inc(),
  };
}
