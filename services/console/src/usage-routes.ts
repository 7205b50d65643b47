import type { Authenticator } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { authenticate } from "./auth.ts";
import { usageCsv } from "./csv.ts";
import { sendProblem } from "./problem.ts";
import { readCustomersRequest, readUsageRequest } from "./usage-request.ts";
import { readCustomers, readUsage, type UsagePorts } from "./usage.ts";

/** `GET /v1/usage` and `GET /v1/usage/customers`: the mode comes from the token alone. */
export function addUsageRoutes(
  app: FastifyInstance,
  ports: UsagePorts & { readonly authenticator: Authenticator; readonly clock: Clock },
): void {
  app.get("/v1/usage", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const question = readUsageRequest(request.query, { mode: auth.principal.mode, now: ports.clock.now() });
    if (question.kind === "problem") return sendProblem(reply, question.problem);
    const reading = await readUsage(question.request, ports);
    if (reading.kind === "problem") return sendProblem(reply, reading.problem);
    void reply.header("vary", "accept");
    if (!wantsCsv(request.headers.accept)) return reply.send(reading.answer);
    return reply.type("text/csv; charset=utf-8").send(usageCsv(reading.answer, question.request.groupBy));
  });

  app.get("/v1/usage/customers", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const question = readCustomersRequest(request.query, { mode: auth.principal.mode, now: ports.clock.now() });
    if (question.kind === "problem") return sendProblem(reply, question.problem);
    const reading = await readCustomers(question.request, ports);
    return reading.kind === "problem" ? sendProblem(reply, reading.problem) : reply.send(reading.answer);
  });
}

/** CSV for a caller who names it before JSON; anything else is JSON. */
function wantsCsv(accept: string | undefined): boolean {
  const types = (accept ?? "").split(",").map((part) => (part.split(";")[0] ?? "").trim().toLowerCase());
  const csv = types.indexOf("text/csv");
  const json = types.indexOf("application/json");
  return csv !== -1 && (json === -1 || csv < json);
}
