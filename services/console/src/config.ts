import type { ControlKey, StreamIdentity } from "@tallyhouse/domain";
import { controlKeysOf, type Environment, parseConfig, SharedSettingsSchema, streamOf } from "@tallyhouse/runtime";
import { z } from "zod";

/** What the environment may set of the console. */
export const ConsoleConfigSchema = z.object({
  /** How long the outbox rests after it found nothing to append. */
  CONSOLE_OUTBOX_POLL_MS: z.coerce.number().int().min(10).max(60_000).default(250),
  /** Seconds between two loads of the page in a browser that did not pause them. */
  CONSOLE_PAGE_REFRESH_SECONDS: z.coerce.number().int().min(1).max(3_600).default(5),
  /** Hour of the day, UTC, of the nightly sweep for usage events that counted twice beyond the dedupe horizon. */
  CONSOLE_SWEEP_HOUR: z.coerce.number().int().min(0).max(23).default(3),
  /** The aggregator's own: a meter ends later than anything that may be counted already. */
  MAX_AHEAD_SECONDS: z.coerce.number().int().min(0).max(86_400).default(300),
});

/** The console's configuration: its own variables, and what the composer knows about the stream. */
export type ConsoleConfig = Readonly<z.infer<typeof ConsoleConfigSchema>> & {
  /** The stream whose progress, control records and log are shown. Its hash seed is not needed here. */
  readonly stream: Omit<StreamIdentity, "hashSeed">;
  /** Signs what the outbox appends; the aggregator knows the same key. */
  readonly controlKey: ControlKey;
};

/** Environment of a console in a process of its own. */
const ConsoleProcessSchema = SharedSettingsSchema.pick({
  LOG_LEVEL: true,
  HTTP_HOST: true,
  CONSOLE_PORT: true,
  KAFKA_BROKERS: true,
  KAFKA_TOPIC: true,
  LOG_PARTITIONS: true,
  BOOKING_WINDOW_SECONDS: true,
  STREAM_ID: true,
  STREAM_PREDECESSORS: true,
  CONTROL_SIGNING_KEY: true,
  CLICKHOUSE_URL: true,
  POSTGRES_URL: true,
  TOKEN_PEPPER: true,
})
  .and(ConsoleConfigSchema)
  .transform((config) => ({
    ...config,
    stream: streamOf(config),
    controlKey: controlKeysOf({ ...config, CONTROL_OLDER_KEYS: [] })[0],
  }));
export type ConsoleProcessConfig = Readonly<z.infer<typeof ConsoleProcessSchema>>;

/** @throws {TallyhouseError} CONFIG_INVALID naming every problem at once. */
export function loadConfig(env: Environment): ConsoleProcessConfig {
  return parseConfig(ConsoleProcessSchema, env);
}
