/** Whether the process lives, whether it can work, and what it has done. */
import type { EventLog } from "@tallyhouse/domain";
import {
  type Component,
  type HealthSources,
  listening,
  type Readiness,
  readinessOf,
  type Registry,
  startHealthListener,
} from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { refuseOutsiders } from "./loopback.ts";
import { sendProblem } from "./problem.ts";

/** Adds `/livez` (the process answers), `/readyz` (200 or 503 by readiness) and, for this machine only, `/metrics`. */
export function addHealthRoutes(
  scope: FastifyInstance,
  input: { readiness: () => Promise<Readiness>; metrics: Registry },
): void {
  scope.get("/livez", () => ({ status: "ok" }));
  scope.get("/readyz", async (_request, reply) => {
    const { isReady, parts } = await input.readiness();
    return reply
      .code(isReady ? 200 : 503)
      .header("cache-control", "no-store")
      .send({ status: isReady ? "ready" : "not ready", parts });
  });
  scope.get("/metrics", async (request, reply) => {
    const problem = refuseOutsiders(request);
    if (problem !== null) return sendProblem(reply, problem);
    return reply.type(input.metrics.contentType).send(await input.metrics.metrics());
  });
}

/** What a gateway's own port tells outsiders nothing of, at a port of its own; null without one. */
export async function startInsideHealth(
  place: { readonly host: string; readonly port: number | undefined },
  sources: HealthSources,
): Promise<Component | null> {
  const { host, port } = place;
  if (port === undefined) return null;
  return listening({ host, port, variable: "GATEWAY_HEALTH_PORT" }, (free) => startHealthListener(free, sources));
}

/** Ready when the log tells its bounds, the console answers at all, and every further part answers, each within the time. */
export function createReadiness(input: {
  log: EventLog;
  consoleUrl: string;
  timeoutMs: number;
  probes?: Readonly<Record<string, () => Promise<unknown>>> | undefined;
}): () => Promise<Readiness> {
  const { log, consoleUrl, timeoutMs } = input;
  const probes = {
    eventLog: () => log.bounds(0),
    console: async (signal: AbortSignal) => {
      const { status, body } = await fetch(new URL("/livez", consoleUrl), { signal });
      await body?.cancel();
      if (status >= 500) throw new Error(`the console answers ${status}`);
    },
    ...input.probes,
  };
  return () => readinessOf({ probes, timeoutMs });
}
