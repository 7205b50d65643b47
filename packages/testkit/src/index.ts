export { meterVersion, quantity, usageEvent } from "./builders.ts";
export { until } from "./until.ts";
export { describeAnalyticsStore, type OpenedAnalyticsStore } from "./analytics-store-suite.ts";
export { type ControlStoreUnderTest, describeControlStore } from "./control-store-suite.ts";
