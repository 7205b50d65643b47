/** The reporter as a process of its own. One at a time: two would plan the same buckets. */
import process from "node:process";
import {
  createMetrics,
  listening,
  randomShare,
  runService,
  startHealthListener,
  systemClock,
} from "@tallyhouse/runtime";
import { buildReporter } from "./app.ts";
import { loadConfig } from "./config.ts";
import { openPorts } from "./ports.ts";
import { readReadiness } from "./readiness.ts";
import { buildStatements } from "./statements/statements.ts";

const exitCode = await runService({
  name: "reporter",
  signals: process,
  load: () => loadConfig(process.env),
  async start(config, logger) {
    const { opened, ...stores } = await openPorts(config);
    const metrics = createMetrics();
    const ports = { ...stores, clock: systemClock, random: randomShare, logger, metrics };
    const reporter = buildReporter(config, ports);
    const place = { host: config.HTTP_HOST, port: config.REPORTER_PORT, variable: "REPORTER_PORT" };
    const readiness = () => readReadiness(reporter, ports);
    const health = await listening(place, (free) => startHealthListener(free, { readiness, metrics }));
    return [...opened, health, reporter, buildStatements(config, ports)];
  },
});
process.exit(exitCode);
