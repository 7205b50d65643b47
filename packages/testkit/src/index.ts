export { meterVersion, quantity, usageEvent } from "./builders.ts";
export { until } from "./until.ts";
