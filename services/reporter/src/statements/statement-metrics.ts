import type { Mode } from "@tallyhouse/domain";
import { Counter, Gauge, type Registry } from "@tallyhouse/runtime";

/** Metrics of statements; each name is registered once per registry. */
export interface StatementMetrics {
  sealed(of: { readonly mode: Mode; readonly kind: "statement" | "adjustment" }): void;
  /** After a pass over all customers. */
  unsealed(mode: Mode, state: { readonly byReason: ReadonlyMap<string, number>; readonly oldestSeconds: number }): void;
  waitingRerates(mode: Mode, count: number): void;
  roundFailed(): void;
}

const REASONS = ["watermark", "backfill", "expired", "unknown_meter", "limits", "differs", "unavailable", "error"];

/** Registers the metrics. */
export function createStatementMetrics(registry: Registry): StatementMetrics {
  const registers = [registry];
  const name = (text: string): string => `tallyhouse_reporter_${text}`;
  const sealed = new Counter({
    name: name("sealed_statements_total"),
    help: "Statements and adjustments written",
    labelNames: ["mode", "kind"],
    registers,
  });
  const unsealed = new Gauge({
    name: name("unsealed_periods"),
    help: "Ended periods without a statement though their cut has passed, by reason",
    labelNames: ["mode", "reason"],
    registers,
  });
  const oldest = new Gauge({
    name: name("oldest_unsealed_seconds"),
    help: "The watermark less the earliest cut of such a period; 0 when there is none",
    labelNames: ["mode"],
    registers,
  });
  const waiting = new Gauge({
    name: name("waiting_rerates"),
    help: "Closed periods that wait to be rated anew",
    labelNames: ["mode"],
    registers,
  });
  const failures = new Counter({
    name: name("failed_statement_rounds_total"),
    help: "Rounds of statements ended by an outage of a store",
    registers,
  });
  return {
    sealed: (of) => sealed.inc(of),
    unsealed(mode, { byReason, oldestSeconds }) {
      for (const reason of REASONS) unsealed.set({ mode, reason }, byReason.get(reason) ?? 0);
      oldest.set({ mode }, oldestSeconds);
    },
    waitingRerates: (mode, count) => waiting.set({ mode }, count),
    roundFailed: () => failures.inc(),
  };
}
