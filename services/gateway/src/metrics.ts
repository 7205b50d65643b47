import { Counter, Gauge, Histogram, type Registry } from "@tallyhouse/runtime";

export interface GatewayMetrics {
  /** By result: `accepted` (answered 202), `rejected`, `unanswered` (their append failed or took too long). */
  readonly events: Counter<"result">;
  readonly requests: Counter<"status">;
  readonly appendSeconds: Histogram;
}

/** Registers what the gateway counts. `inflightBytes` is read when the metrics are. */
export function createGatewayMetrics(registry: Registry, inflightBytes: () => number): GatewayMetrics {
  const registers = [registry];
  // Read by the registry alone.
  void new Gauge({
    name: "tallyhouse_gateway_inflight_bytes",
    help: "Body bytes of ingest requests in flight",
    registers,
    collect() {
      this.set(inflightBytes());
    },
  });
  return {
    events: new Counter({
      name: "tallyhouse_gateway_events_total",
      help: "Usage events by what became of them",
      labelNames: ["result"],
      registers,
    }),
    requests: new Counter({
      name: "tallyhouse_gateway_requests_total",
      help: "HTTP requests by the status of their answer",
      labelNames: ["status"],
      registers,
    }),
    appendSeconds: new Histogram({
      name: "tallyhouse_gateway_append_seconds",
      help: "Time until the log acknowledged, failed or was given up",
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers,
    }),
  };
}
