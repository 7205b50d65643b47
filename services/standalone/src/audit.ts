/** The auditor on what this process has open: for the demo, for tests, and for a folder that no process runs on. */
import { type AuditReport, auditedStreamOf, ConsoleConfigSchema, runAudit } from "@tallyhouse/console";
import { type Environment, parseConfig, streamOf } from "@tallyhouse/runtime";
import { StandaloneConfigSchema } from "./config.ts";
import type { StandalonePorts } from "./ports.ts";

/**
 * Runs every check on opened ports, by the settings in the environment; those of a running standalone, too.
 * @param redirectWaitMs how long a misplaced record's partition may lag; 0 where nothing is folding
 * @throws {TallyhouseError} STORE_UNAVAILABLE, LOG_UNAVAILABLE (retry).
 */
export function auditPorts(
  ports: Pick<StandalonePorts, "analytics" | "log">,
  env: Environment,
  redirectWaitMs = 0,
): Promise<AuditReport> {
  const stream = streamOf(parseConfig(StandaloneConfigSchema, env));
  return runAudit(ports, {
    stream: auditedStreamOf({ ...parseConfig(ConsoleConfigSchema, env), stream }),
    redirectWaitMs,
  });
}
