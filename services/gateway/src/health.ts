/** Whether the process lives, whether it can work, and what it has done. */
import type { EventLog } from "@tallyhouse/domain";
import { pause, type Registry } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { refuseOutsiders } from "./loopback.ts";
import { sendProblem } from "./problem.ts";

export interface Readiness {
  readonly isReady: boolean;
  /** Part → `ok`, or what is wrong with it in a word or two. Anyone may read it. */
  readonly parts: Readonly<Record<string, string>>;
}

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

/** Ready when the log tells its bounds and the console answers at all, each within the time. */
export function createReadiness(input: {
  log: EventLog;
  consoleUrl: string;
  timeoutMs: number;
}): () => Promise<Readiness> {
  const { log, consoleUrl, timeoutMs } = input;
  const probe = async (part: (signal: AbortSignal) => Promise<unknown>): Promise<string> => {
    const over = new AbortController();
    const late = pause(timeoutMs, over.signal).then(() => "does not answer");
    const answer = part(over.signal).then(
      () => "ok",
      () => "unavailable",
    );
    try {
      return await Promise.race([answer, late]);
    } finally {
      over.abort();
    }
  };
  return async () => {
    const [eventLog, console] = await Promise.all([
      probe(() => log.bounds(0)),
      probe(async (signal) => {
        const { status, body } = await fetch(new URL("/livez", consoleUrl), { signal });
        await body?.cancel();
        if (status >= 500) throw new Error(`the console answers ${status}`);
      }),
    ]);
    return { isReady: eventLog === "ok" && console === "ok", parts: { eventLog, console } };
  };
}
