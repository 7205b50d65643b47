/** An aggregator as a process of its own; several share the partitions. */
import process from "node:process";
import {
  createMetrics,
  listening,
  randomShare,
  runService,
  startHealthListener,
  systemClock,
} from "@tallyhouse/runtime";
import { buildAggregator } from "./app.ts";
import { loadConfig } from "./config.ts";
import { openPorts } from "./ports.ts";
import { readReadiness } from "./readiness.ts";

const exitCode = await runService({
  name: "aggregator",
  signals: process,
  load: () => loadConfig(process.env),
  async start(config, logger) {
    const { opened, ...ports } = await openPorts(config, logger);
    const metrics = createMetrics();
    const aggregator = buildAggregator(config, { ...ports, clock: systemClock, random: randomShare, logger, metrics });
    const place = { host: config.HTTP_HOST, port: config.AGGREGATOR_PORT, variable: "AGGREGATOR_PORT" };
    const readiness = () => readReadiness(aggregator, ports);
    const health = await listening(place, (free) => startHealthListener(free, { readiness, metrics }));
    // Closed in reverse: whoever probes sees the door close last but for the stores.
    return [...opened, health, aggregator];
  },
});
process.exit(exitCode);
