import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import type { Clock, Component, Logger, Registry } from "@tallyhouse/runtime";
import { Aggregator, type AggregatorStatus } from "./aggregator.ts";
import type { AggregatorConfig } from "./config.ts";
import { createBackfillStore } from "./backfill-store.ts";
import { createResultStore } from "./result-store.ts";

export type { AggregatorStatus } from "./aggregator.ts";
export { type AggregatorConfig, AggregatorConfigSchema } from "./config.ts";

/** What the aggregator needs from outside; opened and closed by the caller. */
export interface AppPorts {
  readonly log: EventLog;
  readonly analytics: AnalyticsStore;
  readonly clock: Clock;
  /** In [0, 1): retry jitter and the writer's name, nothing that is stored as a result. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Registry;
}

/** Wires the aggregator and opens nothing. Its `run` rejects with a TallyhouseError whose action is `halt` when it must not go on. */
export function buildAggregator(config: AggregatorConfig, ports: AppPorts): Component & { status(): AggregatorStatus } {
  const { analytics, clock, ...others } = ports;
  const writer = Math.floor(ports.random() * 2 ** 32)
    .toString(16)
    .padStart(8, "0");
  const store = createResultStore({ analytics, stream: config.stream, clock, writer });
  const backfills = createBackfillStore({ analytics, stream: config.stream });
  const predecessors = (config.stream.predecessors ?? []).map((before) => ({
    ...before,
    store: createResultStore({ analytics, stream: { ...config.stream, streamId: before.streamId }, clock, writer }),
  }));
  return new Aggregator(config, { ...others, clock, store, backfills, predecessors });
}
