import { Registry } from "prom-client";

/** One registry for a process; every service adds its metrics, `/metrics` prints them. Names: `tallyhouse_<service>_<noun>_<unit>`. */
export function createMetrics(): Registry {
  return new Registry();
}

export { Counter, Gauge, Histogram, type Registry } from "prom-client";
