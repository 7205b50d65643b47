export { type Clock, pause, systemClock } from "./clock.ts";
export { type Environment, parseConfig } from "./config.ts";
export { aborted, type Component, runComponents } from "./lifecycle.ts";
export { createLogger, type Logger, type LogLevel } from "./logger.ts";
export { Counter, createMetrics, Gauge, Histogram, type Registry } from "./metrics.ts";
export { type Migration, pendingMigrations, readMigrations } from "./migrations.ts";
export { retry, type RetryBudget } from "./retry.ts";
