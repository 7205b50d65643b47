export { meterVersion, quantity, usageEvent } from "./builders.ts";
export { MemoryLog } from "./memory-log.ts";
export { until } from "./until.ts";
