import { type Authenticator, type ControlStore, formatInstant } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { authenticate } from "./auth.ts";
import { sendProblem } from "./problem.ts";
import { listSweeps, requestSweep, type SweepRun } from "./sweeper.ts";

/** Sweeps shown: three months of nights. */
const LIST_MAX = 100;

/** `/admin/v1/sweeps`: ask for one, and see what the last ones found. A token sweeps its own mode. */
export function addSweepRoutes(
  app: FastifyInstance,
  ports: { readonly control: ControlStore; readonly clock: Clock; readonly authenticator: Authenticator },
): void {
  app.post("/admin/v1/sweeps", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    return reply.code(202).send(view(await requestSweep(ports.control, auth.principal.mode, ports.clock.now())));
  });

  app.get("/admin/v1/sweeps", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { mode } = auth.principal;
    return reply.send({ mode, sweeps: (await listSweeps(ports.control, mode, LIST_MAX)).map(view) });
  });
}

function view({ id, mode, dueAt, createdAt, finishedAt, result }: SweepRun): object {
  const instant = (at: number | null): string | null => (at === null ? null : formatInstant(at));
  return {
    id,
    mode,
    state: result === null ? "waiting" : "finished",
    dueAt: instant(dueAt),
    createdAt: instant(createdAt),
    finishedAt: instant(finishedAt),
    ...result,
  };
}
