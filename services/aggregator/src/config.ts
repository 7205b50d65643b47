import type { ControlKey, StreamIdentity } from "@tallyhouse/domain";
import { controlKeysOf, type Environment, parseConfig, SharedSettingsSchema, streamOf } from "@tallyhouse/runtime";
import { z } from "zod";

const MIB = 1_048_576;
const SECONDS_PER_HOUR = 3_600;
/**
 * Rows of `identities` live 45 days (their TTL). An open needs those of the horizon, counted from the log's oldest record
 * (7 days of log) with a day to spare: 45 d - 7 d - 1 d = 888 h.
 */
const HORIZON_HOURS_MAX = 888;

const bytes = z.coerce.number().int().min(1);
const hours = z.coerce.number().int().min(1);

/** The aggregator's environment variables. All have defaults. */
export const AggregatorConfigSchema = z
  .object({
    /** Longest time from the first folded record to the start of the flush that stores it. */
    FLUSH_INTERVAL_MS: z.coerce.number().int().min(1).max(60_000).default(250),
    /** A flush starts earlier when this many bytes are folded and not stored. 64 MiB is about 100,000 usage events. */
    FLUSH_BYTES_MAX: bytes.default(64 * MIB),
    /** Above this, folded and not yet acknowledged, the log's delivery waits. */
    BUFFER_BYTES_MAX: bytes.default(256 * MIB),
    /** How far back a repeated identity is recognised: 840 h = 816 h of allowed lateness + 24 h margin. */
    DEDUPE_HORIZON_HOURS: hours.max(HORIZON_HOURS_MAX).default(840),
    /**
     * Most memory of the dedupe indexes of this process; beyond, it halts. 4 GiB are 143 million identities, some 47 counted
     * usage events per second over 35 days. Fixed, not a share of the machine: what fits must not depend on where it starts.
     */
    DEDUPE_MEMORY_BYTES_MAX: bytes.min(MIB).default(4 * 1_024 * MIB),
    /** A usage event that occurred longer before its booking is `too_late`. */
    MAX_AGE_HOURS: hours.default(816),
    /** A usage event that occurs further after its booking is `too_early`. */
    MAX_AHEAD_SECONDS: z.coerce.number().int().min(0).max(86_400).default(300),
    /** A record received this far ahead of our clock halts: with a broker's wrong clock everything would be too late. */
    FORWARD_CLOCK_MAX_SECONDS: z.coerce.number().int().min(1).default(SECONDS_PER_HOUR),
  })
  .refine(
    (config) =>
      config.DEDUPE_HORIZON_HOURS * SECONDS_PER_HOUR >=
      config.MAX_AGE_HOURS * SECONDS_PER_HOUR + config.MAX_AHEAD_SECONDS,
    {
      path: ["DEDUPE_HORIZON_HOURS"],
      message: "must be at least MAX_AGE_HOURS + MAX_AHEAD_SECONDS, or an honest retry can count twice",
    },
  )
  .refine((config) => config.FLUSH_BYTES_MAX <= config.BUFFER_BYTES_MAX, {
    path: ["FLUSH_BYTES_MAX"],
    message: "must not exceed BUFFER_BYTES_MAX, or delivery stops before a flush starts",
  });

/** The parsed environment, with what belongs to the stream and is no setting. */
export type AggregatorConfig = Readonly<z.infer<typeof AggregatorConfigSchema>> & {
  /** Constant for the life of the stream; a change is a new stream. */
  readonly stream: StreamIdentity;
  /** The first one signs ticks; all verify, for ever. */
  readonly controlKeys: readonly [ControlKey, ...ControlKey[]];
};

/** Environment of an aggregator in a process of its own. */
const AggregatorProcessSchema = SharedSettingsSchema.pick({
  LOG_LEVEL: true,
  HTTP_HOST: true,
  AGGREGATOR_PORT: true,
  KAFKA_BROKERS: true,
  KAFKA_TOPIC: true,
  LOG_PARTITIONS: true,
  BOOKING_WINDOW_SECONDS: true,
  STREAM_ID: true,
  STREAM_PREDECESSORS: true,
  STREAM_HASH_SEED: true,
  CONTROL_SIGNING_KEY: true,
  CONTROL_OLDER_KEYS: true,
  CLICKHOUSE_URL: true,
})
  .extend({
    /** Consumer group of the aggregators: its processes share the partitions. */
    KAFKA_GROUP: z.string().min(1).default("tallyhouse-aggregator"),
    /**
     * What this process is called among the aggregators of the group: the same after every restart, another one's never. A
     * restarted aggregator dismisses what a kill left of it in the group, so that its partitions do not wait for the dead
     * session. Default: host name and AGGREGATOR_PORT.
     */
    AGGREGATOR_INSTANCE: z.string().min(1).max(200).optional(),
  })
  .and(AggregatorConfigSchema)
  .transform((config) => ({
    ...config,
    stream: { ...streamOf(config), hashSeed: config.STREAM_HASH_SEED },
    controlKeys: controlKeysOf(config),
  }));
export type AggregatorProcessConfig = Readonly<z.infer<typeof AggregatorProcessSchema>>;

/** @throws {TallyhouseError} CONFIG_INVALID naming every problem at once. */
export function loadConfig(env: Environment): AggregatorProcessConfig {
  return parseConfig(AggregatorProcessSchema, env);
}
