export { type Clock, pause, randomShare, systemClock } from "./clock.ts";
export { type Environment, parseConfig } from "./config.ts";
export {
  answerHealth,
  HEALTH_PATHS,
  type HealthAnswer,
  type HealthSources,
  type Readiness,
  readinessOf,
  startHealthListener,
} from "./health.ts";
export { aborted, type Component, runComponents } from "./lifecycle.ts";
export { createLogger, type Logger, type LogLevel } from "./logger.ts";
export { Counter, createMetrics, Gauge, Histogram, type Registry } from "./metrics.ts";
export { type Migration, pendingMigrations, readMigrations } from "./migrations.ts";
export { retry, type RetryBudget } from "./retry.ts";
export { heldOpen, listening, runService, type SignalSource } from "./service.ts";
export { controlKeysOf, type SharedSettings, SharedSettingsSchema, streamOf } from "./settings.ts";
