/** A gateway that appends to Kafka, as a process of its own: without a consumer, whose end would be the end of the gateway. */
import { openKafkaLog } from "@tallyhouse/eventlog";
import { buildGateway, GatewayConfigSchema } from "@tallyhouse/gateway";
import { createLogger, createMetrics, parseConfig, systemClock } from "@tallyhouse/runtime";

const [brokers = "", topic = "", partitionCount = ""] = process.argv.slice(2);
const logger = createLogger({ level: "silent", name: "gateway" });
const opened = await openKafkaLog({
  brokers: brokers.split(","),
  clientId: "gateway",
  topic,
  partitionCount: Number(partitionCount),
  groupId: "none",
  ownership: "group",
  logger,
});
// Nothing listens on the discard port: only POST /v1/events is used.
const app = await buildGateway(parseConfig(GatewayConfigSchema, { CONSOLE_URL: "http://127.0.0.1:9" }), {
  log: opened.log,
  authenticator: { verify: async () => ({ mode: "live" }) },
  clock: systemClock,
  logger,
  metrics: createMetrics(),
});
process.stdout.write(`${await app.listen({ host: "127.0.0.1", port: 0 })}\n`);
