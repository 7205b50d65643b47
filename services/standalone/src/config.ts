import { SharedSettingsSchema } from "@tallyhouse/runtime";
import { z } from "zod";

const port = z.coerce.number().int().min(0).max(65_535);

/** Any free port stays any free port. */
function portAfter(portNumber: number): number {
  return portNumber === 0 ? 0 : portNumber + 1;
}

/** What standalone reads as the separate services do. */
const { KAFKA_TOPIC, LOG_PARTITIONS, BOOKING_WINDOW_SECONDS, STREAM_ID, STREAM_PREDECESSORS, LOG_LEVEL } =
  SharedSettingsSchema.shape;

/** Environment of `tallyhouse start`. Parts that it passes on (flush, report, limits) are read by their own schemas. */
export const StandaloneConfigSchema = z
  .object({
    KAFKA_TOPIC,
    LOG_PARTITIONS,
    BOOKING_WINDOW_SECONDS,
    STREAM_ID,
    STREAM_PREDECESSORS,
    LOG_LEVEL,
    /** Folder that holds everything: event log, ClickHouse, PostgreSQL, emulator, keys. One process at a time. */
    TALLYHOUSE_DATA: z.string().default(".tallyhouse"),
    /** HTTP port on 127.0.0.1; 0 takes any free one. */
    TALLYHOUSE_PORT: port.default(8080),
    /** Port of the Stripe emulator on 127.0.0.1; default: the one after TALLYHOUSE_PORT. */
    TALLYHOUSE_EMULATOR_PORT: port.optional(),
    /** Port of the analysts' endpoint on 127.0.0.1, or `off`; default: the one after TALLYHOUSE_EMULATOR_PORT. */
    TALLYHOUSE_SQL_PORT: z.union([z.literal("off"), port]).optional(),
    /** The operator's service token, `svc_live_th_…` or `svc_test_th_…`; generated on the first start when absent. */
    TALLYHOUSE_INGEST_KEY: z
      .string()
      .regex(
        /^svc_(live|test)_th_[0-9A-Za-z_-]{16,128}$/,
        "must look like svc_live_th_… or svc_test_th_… with 16 to 128 characters behind",
      )
      .optional(),
    /** Meters file applied on the first start; `none` leaves the folder without meters. */
    TALLYHOUSE_METERS: z.string().optional(),
    /** Comma-separated `host:port`; set, the log is Kafka instead of the embedded one. */
    KAFKA_BROKERS: z.string().optional(),
    /** Set, the control store is that PostgreSQL server instead of the embedded one. */
    POSTGRES_URL: SharedSettingsSchema.shape.POSTGRES_URL.optional(),
    /** Set, the analytics store is that ClickHouse server instead of the embedded one. */
    CLICKHOUSE_URL: SharedSettingsSchema.shape.CLICKHOUSE_URL.optional(),
    /** `always`: acknowledged means fsynced. `interval`: survives a kill of the process, not a power failure. */
    LOG_FSYNC: z.enum(["always", "interval"]).default("always"),
    /** Secret (at least 32 characters) that signs control records; generated and kept in the folder when absent. */
    CONTROL_SIGNING_KEY: z.string().min(32).optional(),
    /** Whether the emulator answers 429 and 409 at Stripe's documented limits. */
    EMULATOR_LIMITS: z.enum(["on", "off"]).default("on"),
    /** Milliseconds between two report rounds; the default of a separate reporter is 60,000. */
    REPORT_INTERVAL_MS: z.coerce.number().int().min(100).max(3_600_000).default(10_000),
  })
  .transform((config) => {
    const emulatorPort = config.TALLYHOUSE_EMULATOR_PORT ?? portAfter(config.TALLYHOUSE_PORT);
    const sqlPort = config.TALLYHOUSE_SQL_PORT ?? portAfter(emulatorPort);
    return { ...config, TALLYHOUSE_EMULATOR_PORT: emulatorPort, TALLYHOUSE_SQL_PORT: sqlPort };
  });
export type StandaloneConfig = Readonly<z.infer<typeof StandaloneConfigSchema>>;
