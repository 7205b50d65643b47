import { type Environment, parseConfig, SharedSettingsSchema } from "@tallyhouse/runtime";
import { z } from "zod";

const milliseconds = z.coerce.number().int().min(10).max(600_000);
const bytes = z.coerce.number().int().min(1_000).max(1_000_000_000);
const count = z.coerce.number().int().min(1).max(1_000_000);

/** The gateway's part of the environment. */
export const GatewayConfigSchema = z
  .object({
    /** Bytes of one request body; one more is 413 BODY_TOO_LARGE. */
    BODY_BYTES_MAX: bytes.default(1_000_000),
    /** Bytes that a compressed body may become, beside 20 times its size; one more is 413 BODY_TOO_LARGE. */
    INFLATED_BYTES_MAX: bytes.default(5_000_000),
    /** Usage events of one request; one more is 413 TOO_MANY_EVENTS. */
    EVENTS_PER_REQUEST_MAX: count.default(500),
    /**
     * Body bytes (of compressed ones, what they may become) of all requests of POST /v1/events between their headers and the end of
     * their answer and append; beyond, 503. 64 MB = 64 plain bodies of the largest size. Parsed events and records take some 6 times as
     * much memory: about 400 MB.
     */
    INFLIGHT_BYTES_MAX: bytes.default(64_000_000),
    /** Requests of POST /v1/events in flight at once; beyond, 503. */
    INFLIGHT_REQUESTS_MAX: count.default(2_000),
    /** Requests that are being forwarded to the console at once, each with at most BODY_BYTES_MAX in memory; beyond, 503. */
    FORWARDS_MAX: count.default(100),
    /** How long an append may take until the caller is told that its outcome is unknown. */
    APPEND_TIMEOUT_MS: milliseconds.default(4_000),
    /** Origin of the console, without a path: where reads and the admin API are forwarded to. */
    CONSOLE_URL: z
      .url({ protocol: /^https?$/ })
      .refine(
        (url) => new URL(url).href === `${new URL(url).origin}/`,
        "must be an origin such as http://127.0.0.1:8081",
      ),
    /** How long the console may take to begin its answer, and between two parts of it. */
    CONSOLE_TIMEOUT_MS: milliseconds.default(30_000),
    /** How long each part may take to say that it is ready. */
    READINESS_TIMEOUT_MS: milliseconds.default(1_000),
    /** How long a request may take from its first byte to its last; beyond, 408. Its headers get at most a third of it. */
    REQUEST_TIMEOUT_MS: milliseconds.default(30_000),
    /** How long an idle connection is kept: longer than the 60 s of common load balancers, so that they close first. */
    KEEP_ALIVE_TIMEOUT_MS: milliseconds.default(72_000),
    /** Open connections; further ones are dropped. */
    CONNECTIONS_MAX: count.default(10_000),
    /** Our proxies in front of the gateway: that many addresses from the right of X-Forwarded-For stands the client's. 0: none. */
    PROXY_HOPS: z.coerce.number().int().min(0).max(10).default(0),
    /** How long a stop waits for requests in flight before their connections are cut. */
    CLOSE_GRACE_MS: milliseconds.default(8_000),
  })
  .refine((config) => config.INFLIGHT_BYTES_MAX >= Math.max(config.BODY_BYTES_MAX, config.INFLATED_BYTES_MAX), {
    path: ["INFLIGHT_BYTES_MAX"],
    message: "must be at least BODY_BYTES_MAX and INFLATED_BYTES_MAX, or the largest body is never taken",
  })
  .refine((config) => config.CLOSE_GRACE_MS > config.APPEND_TIMEOUT_MS, {
    path: ["CLOSE_GRACE_MS"],
    message: "must exceed APPEND_TIMEOUT_MS, or a stop cuts answers whose append is still under way",
  });
export type GatewayConfig = Readonly<z.infer<typeof GatewayConfigSchema>>;

/** Environment of a gateway in a process of its own. */
const GatewayProcessSchema = SharedSettingsSchema.pick({
  LOG_LEVEL: true,
  HTTP_HOST: true,
  GATEWAY_PORT: true,
  GATEWAY_HEALTH_PORT: true,
  KAFKA_BROKERS: true,
  KAFKA_TOPIC: true,
  LOG_PARTITIONS: true,
  POSTGRES_URL: true,
  TOKEN_PEPPER: true,
}).and(GatewayConfigSchema);
export type GatewayProcessConfig = Readonly<z.infer<typeof GatewayProcessSchema>>;

/** @throws {TallyhouseError} CONFIG_INVALID naming every problem at once. */
export function loadConfig(env: Environment): GatewayProcessConfig {
  return parseConfig(GatewayProcessSchema, env);
}
