/**
 * The gateway of `bench:ingest`, as a process of its own: HTTP, validation and the log, and nobody who counts meanwhile. Its token is
 * hashed and remembered as in production; the store behind that answers from memory.
 */
import type { ControlStore, OpenedEventLog } from "@tallyhouse/domain";
import { ensureTopic, openEmbeddedLog, openKafkaLog } from "@tallyhouse/eventlog";
import { buildGateway, GatewayConfigSchema } from "@tallyhouse/gateway";
import { createServiceTokenDirectory } from "@tallyhouse/postgres";
import { createLogger, createMetrics, parseConfig, systemClock } from "@tallyhouse/runtime";

/** As `tallyhouse start` has it, which counts these records afterwards. */
const PARTITION_COUNT = 16;
const [folder = "", brokers = "", topic = ""] = process.argv.slice(2);
const logger = createLogger({ level: "warn", name: "gateway" });

async function openLog(): Promise<OpenedEventLog> {
  if (brokers === "") {
    const name = "usage.events.v1";
    return openEmbeddedLog({ folder, name, partitionCount: PARTITION_COUNT, clock: systemClock });
  }
  const place = { brokers: brokers.split(","), clientId: "bench", topic, partitionCount: PARTITION_COUNT };
  await ensureTopic(place);
  return openKafkaLog({ ...place, groupId: "none", ownership: "fixed", logger });
}

const refuse = (): never => {
  throw new Error("the gateway only looks tokens up");
};
const store = {
  query: async () => [{ mode: "live" }],
  transaction: refuse,
  execute: refuse,
} as unknown as ControlStore;
const opened = await openLog();
// Nothing listens on the discard port: only POST /v1/events is used.
const app = await buildGateway(parseConfig(GatewayConfigSchema, { CONSOLE_URL: "http://127.0.0.1:9" }), {
  log: opened.log,
  authenticator: createServiceTokenDirectory(store, Buffer.alloc(32)),
  clock: systemClock,
  logger,
  metrics: createMetrics(),
});
process.once("SIGTERM", () => void app.close().then(() => opened.close()));
process.stdout.write(`${await app.listen({ host: "127.0.0.1", port: 0 })}\n`);
