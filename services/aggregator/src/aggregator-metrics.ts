import type { AnalyticsValue } from "@tallyhouse/domain";
import { Counter, Gauge, Histogram, type Registry } from "@tallyhouse/runtime";
import type { DedupeMemory } from "./dedupe-memory.ts";
import { RAW_STATUS_COLUMN } from "./tables.ts";
import type { TaskSnapshot } from "./task.ts";

/** The aggregator's metrics. Only what is acknowledged is counted. */
export class AggregatorMetrics {
  readonly #records: Counter<"status">;
  readonly #flushSeconds: Histogram;
  readonly #storedOffset: Gauge<"partition">;
  readonly #commitFailures: Counter;

  constructor(registry: Registry, memory: DedupeMemory) {
    const registers = [registry];
    this.#records = new Counter({
      name: "tallyhouse_aggregator_records_total",
      help: "Records of the log that are stored, by what became of them",
      labelNames: ["status"],
      registers,
    });
    this.#flushSeconds = new Histogram({
      name: "tallyhouse_aggregator_flush_seconds",
      help: "Time from a flush's snapshot to its acknowledged progress",
      buckets: [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
      registers,
    });
    this.#storedOffset = new Gauge({
      name: "tallyhouse_aggregator_stored_offset",
      help: "Next offset after the stored prefix",
      labelNames: ["partition"],
      registers,
    });
    for (const gauge of dedupeGauges(memory)) registry.registerMetric(gauge);
    this.#commitFailures = new Counter({
      name: "tallyhouse_aggregator_advisory_commit_failures_total",
      help: "Advisory commits that failed; harmless, but lag monitors see an old offset",
      registers,
    });
  }

  noteFlush(snapshots: readonly TaskSnapshot[], tookMs: number): void {
    const counts = new Map<AnalyticsValue | undefined, number>();
    for (const { rows, progress } of snapshots) {
      for (const row of rows.raw_events) {
        const status = row[RAW_STATUS_COLUMN];
        counts.set(status, (counts.get(status) ?? 0) + 1);
      }
      this.#storedOffset.set({ partition: progress.partition }, progress.nextOffset);
    }
    for (const [status, count] of counts) this.#records.inc({ status: String(status) }, count);
    this.#flushSeconds.observe(tookMs / 1_000);
  }

  noteCommitFailure(): void {
    this.#commitFailures.inc();
  }
}

/** Read when they are asked for: a sum over the partitions. */
function dedupeGauges(memory: DedupeMemory): Gauge[] {
  return [
    new Gauge({
      name: "tallyhouse_aggregator_dedupe_identities",
      help: "Identities in the dedupe indexes of this process, expired ones that have not left yet included",
      registers: [],
      collect() {
        this.set(memory.size);
      },
    }),
    new Gauge({
      name: "tallyhouse_aggregator_dedupe_bytes",
      help: "Memory of the dedupe indexes of this process; at DEDUPE_MEMORY_BYTES_MAX it halts",
      registers: [],
      collect() {
        this.set(memory.sizeBytes);
      },
    }),
  ];
}
