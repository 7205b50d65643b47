/** The console as a process of its own. */
import process from "node:process";
import { createMetrics, heldOpen, listening, runService, systemClock } from "@tallyhouse/runtime";
import { buildConsole } from "./app.ts";
import { loadConfig } from "./config.ts";
import { openPorts } from "./ports.ts";

const exitCode = await runService({
  name: "console",
  signals: process,
  load: () => loadConfig(process.env),
  async start(config, logger) {
    const { opened, ...ports } = await openPorts(config, logger);
    const shared = { ...ports, clock: systemClock, logger, metrics: createMetrics() };
    const { app, outbox, sweeper, audits } = await buildConsole(config, shared);
    const place = { host: config.HTTP_HOST, port: config.CONSOLE_PORT, variable: "CONSOLE_PORT" };
    await listening(place, (free) => app.listen(free));
    return [...opened, outbox, sweeper, audits, heldOpen("console", app)];
  },
});
process.exit(exitCode);
