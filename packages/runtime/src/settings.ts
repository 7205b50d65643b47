import { type ControlKey, controlKeyOf, type StreamIdentity, type StreamPredecessor } from "@tallyhouse/domain";
import { z } from "zod";

const SERVER_PROTOCOL = /^https?$/;
const CONTROL_KEY_CHARS_MIN = 32;

/** Lower-case hex of so many bytes, as a Buffer. */
const hexBytes = (byteCount: number) =>
  z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${byteCount * 2}}$`), `must be ${byteCount * 2} lower-case hex digits`)
    .transform((text) => Buffer.from(text, "hex"));
const port = z.coerce.number().int().min(0).max(65_535);
const listOf = (text: string): string[] =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");

const PREDECESSOR = /^(\d{1,5}):(\d{1,4})(:lost)?$/;
const predecessorOf = (text: string): StreamPredecessor => {
  const [, streamId, partitionCount, lost] = PREDECESSOR.exec(text) ?? [];
  return { streamId: Number(streamId), partitionCount: Number(partitionCount), isLost: lost !== undefined };
};

/** Settings that more than one service reads, each declared once. A service takes its own with `pick`. */
export const SharedSettingsSchema = z.object({
  /** Log lines on standard error, from this level on. */
  LOG_LEVEL: z.enum(["info", "warn", "error", "silent"]).default("warn"),
  /** Address that a service of its own listens on; 0.0.0.0 in a container. */
  HTTP_HOST: z.string().min(1).default("127.0.0.1"),
  /** Comma-separated `host:port` of the Kafka brokers. */
  KAFKA_BROKERS: z
    .string()
    .transform(listOf)
    .refine((brokers) => brokers.length > 0, "must name at least one broker"),
  /** Topic of the usage events. */
  KAFKA_TOPIC: z.string().default("usage.events.v1"),
  /** Partitions of the log, fixed for the life of the stream. */
  LOG_PARTITIONS: z.coerce.number().int().min(1).max(1_024).default(16),
  /** Length of a booking window; a divisor of 900, fixed for the life of the stream. */
  BOOKING_WINDOW_SECONDS: z.coerce
    .number()
    .int()
    .min(1)
    .max(900)
    .refine((seconds) => 900 % seconds === 0, "must divide 900")
    .default(900),
  /** Number of the stream, a part of every stored key: one more whenever the topic is made anew. */
  STREAM_ID: z.coerce.number().int().min(0).max(65_535).default(1),
  /**
   * Comma-separated `id:partitions` of the streams before this one, oldest first, with `:lost` behind one whose log was lost or
   * truncated. Fixed for the life of the stream. LOG_PARTITIONS is a multiple of each count, STREAM_HASH_SEED stays.
   */
  STREAM_PREDECESSORS: z
    .string()
    .default("")
    .transform(listOf)
    .refine((streams) => streams.every((text) => PREDECESSOR.test(text)), "must be id:partitions or id:partitions:lost")
    .transform((streams) => streams.map(predecessorOf)),
  /** 16 secret bytes, hex, that key every identity hash. Lost or changed, identities are not recognised again. */
  STREAM_HASH_SEED: hexBytes(16),
  /** Secret of at least 32 characters that signs control records. */
  CONTROL_SIGNING_KEY: z.string().min(CONTROL_KEY_CHARS_MIN),
  /** Comma-separated earlier signing keys: what they signed is in the log and must verify for ever. */
  CONTROL_OLDER_KEYS: z
    .string()
    .default("")
    .transform(listOf)
    .refine(
      (keys) => keys.every((key) => key.length >= CONTROL_KEY_CHARS_MIN),
      `must be keys of at least ${CONTROL_KEY_CHARS_MIN} characters`,
    ),
  /** 32 secret bytes, hex, that key the hashes of service tokens; kept outside the database on purpose. */
  TOKEN_PEPPER: hexBytes(32),
  /** ClickHouse over HTTP: `http://user:password@host:8123/database`. */
  CLICKHOUSE_URL: z.url({ protocol: SERVER_PROTOCOL }),
  /** PostgreSQL: `postgres://user:password@host:5432/database`. */
  POSTGRES_URL: z.url({ protocol: /^postgres(?:ql)?$/ }),
  /** Port of a gateway. */
  GATEWAY_PORT: port.default(8080),
  /** Port of a console: for gateways, not for callers. */
  CONSOLE_PORT: port.default(8090),
  /** Port where an aggregator answers `/livez`, `/readyz` and `/metrics`. */
  AGGREGATOR_PORT: port.default(8091),
  /** Port where a reporter answers `/livez`, `/readyz` and `/metrics`. */
  REPORTER_PORT: port.default(8092),
});
/** The parsed shared settings. */
export type SharedSettings = Readonly<z.infer<typeof SharedSettingsSchema>>;

/** What the settings say about the stream, but for its secret seed. */
export function streamOf(
  settings: Pick<SharedSettings, "STREAM_ID" | "LOG_PARTITIONS" | "BOOKING_WINDOW_SECONDS"> &
    Partial<Pick<SharedSettings, "STREAM_PREDECESSORS">>,
): Omit<StreamIdentity, "hashSeed"> {
  return {
    streamId: settings.STREAM_ID,
    partitionCount: settings.LOG_PARTITIONS,
    bookingWindowSeconds: settings.BOOKING_WINDOW_SECONDS,
    predecessors: settings.STREAM_PREDECESSORS ?? [],
  };
}

/** The keys of control records: the first one signs, all verify. */
export function controlKeysOf(
  settings: Pick<SharedSettings, "CONTROL_SIGNING_KEY" | "CONTROL_OLDER_KEYS">,
): readonly [ControlKey, ...ControlKey[]] {
  const older = settings.CONTROL_OLDER_KEYS.map((text) => controlKeyOf(Buffer.from(text, "utf8")));
  return [controlKeyOf(Buffer.from(settings.CONTROL_SIGNING_KEY, "utf8")), ...older];
}
