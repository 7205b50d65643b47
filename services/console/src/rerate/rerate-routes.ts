/** `/admin/v1/invoices/{id}/rerate`: a closed period is rated anew. The mode comes from the service token alone. */
import type { Authenticator, ControlStore } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { authenticate } from "../auth.ts";
import { fieldProblemsOf, sendProblem } from "../problem.ts";
import { RerateBodySchema } from "./rerate-bodies.ts";
import { invalid, readRerate, requestRerate } from "./rerate-requests.ts";

/** What these routes work with. */
export interface ReratePorts {
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
}

/** Adds the routes. */
export function addRerateRoutes(app: FastifyInstance, ports: ReratePorts): void {
  app.post("/admin/v1/invoices/:id/rerate", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const body = RerateBodySchema.safeParse(request.body ?? {});
    if (!body.success) return sendProblem(reply, invalid(fieldProblemsOf(body.error, "/")));
    const { id } = request.params as { readonly id: string };
    const asked = { mode: auth.principal.mode, id, body: body.data, nowAt: ports.clock.now() };
    const outcome = await requestRerate(ports.control, asked);
    if (outcome.kind === "problem") return sendProblem(reply, outcome.problem);
    return reply.code(outcome.kind === "made" ? 202 : 200).send(outcome.request);
  });

  app.get("/admin/v1/rerates/:id", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { id } = request.params as { readonly id: string };
    const found = /^\d{1,15}$/.test(id)
      ? await readRerate(ports.control, { mode: auth.principal.mode, id: Number(id) })
      : null;
    if (found !== null) return reply.send(found);
    return sendProblem(reply, { status: 404, code: "RERATE_UNKNOWN", detail: `no request ${id} in this mode` });
  });
}
