import type { StreamIdentity } from "@tallyhouse/domain";
import { type Environment, parseConfig, SharedSettingsSchema, streamOf } from "@tallyhouse/runtime";
import { z } from "zod";

const seconds = (defaultValue: number): z.ZodType<number> =>
  z.coerce
    .number()
    .int()
    .min(0)
    .max(30 * 86_400)
    .default(defaultValue);
const ratePerSecond = z.coerce.number().positive().max(100_000).optional();

function secretKey(mode: "live" | "test"): z.ZodType<string | undefined> {
  return z
    .string()
    .regex(new RegExp(`^(sk|rk)_${mode}_`), `must be a ${mode} key: it begins with sk_${mode}_ or rk_${mode}_`)
    .optional();
}

/** Environment of the reporter. A key of the wrong mode and an auto-map without emulator are refused at start. */
export const ReporterConfigSchema = z
  .object({
    /** Key of the account that bills usage of mode `test`. Absent: that usage is counted but not reported, and a metric says so. */
    STRIPE_TEST_SECRET_KEY: secretKey("test"),
    /** Key of the account that bills usage of mode `live`. */
    STRIPE_LIVE_SECRET_KEY: secretKey("live"),
    /** Base URL of a Stripe emulator, such as http://127.0.0.1:8081. Absent: Stripe itself. */
    STRIPE_API_URL: z.url({ protocol: /^https?$/ }).optional(),
    /** How often totals are compared with the ledger. */
    REPORT_INTERVAL_MS: z.coerce.number().int().min(10).max(3_600_000).default(60_000),
    /** A bucket is planned once the log has passed its end by this much; later usage becomes a second row. */
    REPORT_LATENESS_SECONDS: seconds(900),
    /** A period's statement is cut this long after its end, rounded up to BOOKING_WINDOW_SECONDS; later usage becomes an adjustment. */
    CLOSE_LATENESS_SECONDS: seconds(3_600),
    /** Usage of closed periods that changed is adjusted at multiples of this: at most one adjustment per statement and UTC day. */
    RERATE_INTERVAL_SECONDS: z.coerce
      .number()
      .int()
      .min(5)
      .max(30 * 86_400)
      .default(86_400),
    /** Meter events per second and account. Default 800 in live mode (of Stripe's 1,000), 15 in test mode (of 25). */
    SEND_RATE_PER_SECOND: ratePerSecond,
    /** Every other call per second and account. Default 20 live (of 25 per endpoint), 5 test, in proportion to the send rate. */
    CALL_RATE_PER_SECOND: ratePerSecond,
    /** Calls in flight per account; never two for one (Stripe customer, Stripe meter). */
    SEND_CONCURRENCY_MAX: z.coerce.number().int().min(1).max(1_024).default(128),
    /** How long Stripe's summaries may lag behind an accepted event; a third of it lies between the two readings of a proof. */
    VERIFY_SETTLE_SECONDS: seconds(900),
    /** Create one Stripe meter per meter and one Stripe customer per customer. For an emulator only. */
    REPORT_AUTO_MAP: z
      .enum(["true", "false"])
      .default("false")
      .transform((text) => text === "true"),
  })
  .refine((config) => !config.REPORT_AUTO_MAP || config.STRIPE_API_URL !== undefined, {
    path: ["REPORT_AUTO_MAP"],
    message:
      "creates Stripe customers on its own and is meant for an emulator: set STRIPE_API_URL to one, or leave REPORT_AUTO_MAP out",
  });

/** Parsed environment plus the constants of the stream whose progress is the watermark. */
export type ReporterConfig = Readonly<z.infer<typeof ReporterConfigSchema>> & {
  readonly stream: Pick<StreamIdentity, "streamId" | "partitionCount" | "bookingWindowSeconds">;
};

/** Environment of a reporter in a process of its own. */
const ReporterProcessSchema = SharedSettingsSchema.pick({
  LOG_LEVEL: true,
  HTTP_HOST: true,
  REPORTER_PORT: true,
  STREAM_ID: true,
  LOG_PARTITIONS: true,
  BOOKING_WINDOW_SECONDS: true,
  CLICKHOUSE_URL: true,
  POSTGRES_URL: true,
})
  .and(ReporterConfigSchema)
  .transform((config) => ({ ...config, stream: streamOf(config) }));
export type ReporterProcessConfig = Readonly<z.infer<typeof ReporterProcessSchema>>;

/** @throws {TallyhouseError} CONFIG_INVALID naming every problem at once. */
export function loadConfig(env: Environment): ReporterProcessConfig {
  return parseConfig(ReporterProcessSchema, env);
}
