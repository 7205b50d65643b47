export { compareTotals, waitForPipeline } from "./compare.ts";
export { deliver } from "./deliver.ts";
export { generateDay } from "./generate.ts";
export { applyMeters, type DemoOutput, runDemo } from "./run.ts";
export { readTrace } from "./traces.ts";
export { cloudEventOf, type DemoEvent, planDelivery, seededRandom, type Workload } from "./workload.ts";
