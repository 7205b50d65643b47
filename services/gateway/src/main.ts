/** The gateway as a process of its own. */
import process from "node:process";
import { createMetrics, heldOpen, listening, runService, systemClock } from "@tallyhouse/runtime";
import { buildGateway } from "./app.ts";
import { loadConfig } from "./config.ts";
import { createReadiness, startInsideHealth } from "./health.ts";
import { openPorts } from "./ports.ts";

const exitCode = await runService({
  name: "gateway",
  signals: process,
  load: () => loadConfig(process.env),
  async start(config, logger) {
    const { opened, ...ports } = await openPorts(config, logger);
    const metrics = createMetrics();
    const { CONSOLE_URL: consoleUrl, READINESS_TIMEOUT_MS: timeoutMs, HTTP_HOST: host } = config;
    const readiness = createReadiness({ log: ports.log, probes: ports.probes, consoleUrl, timeoutMs });
    const health = await startInsideHealth({ host, port: config.GATEWAY_HEALTH_PORT }, { readiness, metrics });
    const app = await buildGateway(config, { ...ports, readiness, clock: systemClock, logger, metrics });
    const place = { host, port: config.GATEWAY_PORT, variable: "GATEWAY_PORT" };
    await listening(place, (free) => app.listen(free));
    return [...opened, ...(health === null ? [] : [health]), heldOpen("gateway", app)];
  },
});
process.exit(exitCode);
