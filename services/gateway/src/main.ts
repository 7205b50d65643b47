/** The gateway as a process of its own. */
import process from "node:process";
import { createMetrics, heldOpen, listening, runService, systemClock } from "@tallyhouse/runtime";
import { buildGateway } from "./app.ts";
import { loadConfig } from "./config.ts";
import { openPorts } from "./ports.ts";

const exitCode = await runService({
  name: "gateway",
  signals: process,
  load: () => loadConfig(process.env),
  async start(config, logger) {
    const { opened, ...ports } = await openPorts(config, logger);
    const app = await buildGateway(config, { ...ports, clock: systemClock, logger, metrics: createMetrics() });
    const place = { host: config.HTTP_HOST, port: config.GATEWAY_PORT, variable: "GATEWAY_PORT" };
    await listening(place, (free) => app.listen(free));
    return [...opened, heldOpen("gateway", app)];
  },
});
process.exit(exitCode);
