/** `/admin/v1/events/…/void` and `/replace`, and the list of what was corrected. The mode comes from the service token alone. */
import { type Authenticator, formatInstant, isJsonObject, type JsonObject, parseJson } from "@tallyhouse/domain";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { authenticate } from "./auth.ts";
import { readStates } from "./correction-state.ts";
import { type Correction, listCorrections } from "./correction-store.ts";
import { correctEvent, type CorrectionPorts } from "./corrections.ts";
import { ActorSchema, ReasonSchema } from "./operator-words.ts";
import { type FieldProblem, fieldProblemsOf, type Problem, queryInvalid, sendProblem } from "./problem.ts";
import { IdentityPartsSchema } from "./raw-rows.ts";

const LIST_MAX = 1_000;

/** Body of a void; source and id only where the path has none. */
export const VoidBodySchema = IdentityPartsSchema.extend({
  reason: ReasonSchema,
  actor: ActorSchema,
});
/** Body of a replace: `event` is the native shape; customer, source, time and id have defaults. */
export const ReplaceBodySchema = VoidBodySchema.extend({
  event: z.custom<JsonObject>(isJsonObject, "must be a JSON object").meta({ type: "object" }),
});
/** Query of `GET /admin/v1/corrections`. */
export const CorrectionsParameters = z.strictObject({
  customer: IdentityPartsSchema.shape.customer.optional(),
  before: z.coerce
    .number({ error: "must be the id of a correction" })
    .int()
    .min(1)
    .max(Number.MAX_SAFE_INTEGER)
    .optional(),
  limit: z.coerce
    .number({ error: "must be a number" })
    .int()
    .min(1)
    .max(LIST_MAX, `must be at most ${LIST_MAX}`)
    .default(100),
});

type Ports = CorrectionPorts & { readonly authenticator: Authenticator };

/** A correction as the API shows it. */
export function correctionView(correction: Correction, state: string): object {
  const { id, identity, place, kind, reason, actor, createdAt, before, after } = correction;
  const { mode, ...event } = identity;
  return {
    id,
    kind,
    state,
    mode,
    event,
    record: place,
    reason,
    actor,
    createdAt: formatInstant(createdAt),
    // As JSON with the numbers that were sent.
    before: parseJson(before),
    after: after === null ? null : parseJson(after.text),
  };
}

/** Adds the routes. Bodies are read without passing their numbers through a double. */
export function addCorrectionRoutes(app: FastifyInstance, ports: Ports): void {
  void app.register(async (scope) => {
    scope.removeContentTypeParser("application/json");
    scope.addContentTypeParser("application/json", { parseAs: "string" }, (_request, body, done) => {
      try {
        done(null, parseJson(String(body)));
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        done(Object.assign(error, { statusCode: 400 }));
      }
    });
    for (const verb of ["void", "replace"] as const) {
      scope.post(`/admin/v1/events/:source/:id/${verb}`, (request, reply) => correct(request, reply, { ports, verb }));
      // Not every source and id can stand in a path: a segment of dots is resolved by every client.
      scope.post(`/admin/v1/events/${verb}`, (request, reply) => correct(request, reply, { ports, verb }));
    }
  });

  app.get("/admin/v1/corrections", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const query = CorrectionsParameters.safeParse(request.query);
    if (!query.success) return sendProblem(reply, queryInvalid(fieldProblemsOf(query.error, ".")));
    const { customer: asked = null, before = null, limit } = query.data;
    const { mode } = auth.principal;
    const corrections = await listCorrections(ports.control, { mode, customer: asked, before, limit });
    const states = await readStates(ports, corrections);
    return reply.send({
      mode,
      corrections: corrections.map((correction, index) => correctionView(correction, states[index] ?? "pending")),
    });
  });
}

async function correct(
  request: FastifyRequest,
  reply: FastifyReply,
  { ports, verb }: { readonly ports: Ports; readonly verb: "void" | "replace" },
): Promise<FastifyReply> {
  const auth = await authenticate(request, ports.authenticator);
  if (auth.kind === "problem") return sendProblem(reply, auth.problem);
  const given = isJsonObject(request.body) ? request.body : {};
  const path = request.params as { readonly source?: string; readonly id?: string };
  const twice = Object.keys(path).filter((name) => Object.hasOwn(given, name));
  if (twice.length > 0) return sendProblem(reply, invalid(twice.map((name) => pathHas(name))));
  const body = (verb === "void" ? VoidBodySchema : ReplaceBodySchema).safeParse({ ...given, ...path });
  if (!body.success) return sendProblem(reply, invalid(fieldProblemsOf(body.error, "/")));
  const { customer, source, id, reason, actor } = body.data;
  const outcome = await correctEvent(ports, {
    identity: { mode: auth.principal.mode, customer, source, id },
    reason,
    actor,
    replacement: "event" in body.data ? (body.data.event as JsonObject) : null,
  });
  if (outcome.kind === "problem") return sendProblem(reply, outcome.problem);
  const [state = "pending"] = await readStates(ports, [outcome.correction]);
  return reply.code(outcome.kind === "made" ? 202 : 200).send(correctionView(outcome.correction, state));
}

function pathHas(name: string): FieldProblem {
  return { field: `/${name}`, rule: "is in the path already" };
}

function invalid(problems: readonly FieldProblem[]): Problem {
  const detail = problems.map(({ field, rule }) => `${field} ${rule}`).join("; ");
  return { status: 400, code: "CORRECTION_INVALID", detail, problems };
}
