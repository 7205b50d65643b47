/** `/admin/v1/plans`: versions, diff and apply. The mode comes from the service token alone. */
import { type Authenticator, type ControlStore, formatInstant, unreachable } from "@tallyhouse/domain";
import { differenceText, parsePlansFile } from "@tallyhouse/plans";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "../auth.ts";
import { ActorSchema, ReasonSchema } from "../operator-words.ts";
import { fieldProblemsOf, type Problem, sendProblem } from "../problem.ts";
import { type CatalogueVersion, newestOf, type PlanBody, readCatalogue } from "./catalogue-store.ts";
import { applyCatalogue, type CatalogueChange, diffCatalogue, type GivenFile } from "./plan-changes.ts";

/** Body of `POST /admin/v1/plans/diff`. */
export const PlansBodySchema = z.strictObject({ file: z.string({ error: "is the text of a plans file" }) });
/** Body of `POST /admin/v1/plans/apply`. */
export const ApplyPlansBodySchema = PlansBodySchema.extend({ reason: ReasonSchema, actor: ActorSchema });

/** What the routes of plans work with. */
export interface PlansPorts {
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
}

/** Adds the routes. */
export function addPlanRoutes(app: FastifyInstance, ports: PlansPorts): void {
  const { control, clock } = ports;

  app.get("/admin/v1/plans", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { mode } = auth.principal;
    const newest = [...newestOf(await readCatalogue(control, mode)).values()];
    return reply.send({
      mode,
      plans: newest.filter(({ kind }) => kind === "plan").map(shownPlan),
      endpoints:
        newest.filter(({ kind }) => kind === "endpoints").map((row) => ({ ...about(row), rules: row.body }))[0] ?? null,
      bundles: newest.filter(({ kind }) => kind === "bundle").map((row) => ({ ...about(row), bundle: row.body })),
    });
  });

  app.get<{ Params: { key: string } }>("/admin/v1/plans/:key", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { mode } = auth.principal;
    const { key } = request.params;
    const versions = await readCatalogue(control, mode, key);
    if (versions.length === 0) {
      const detail = `there is no plan "${key}" in mode ${mode}; GET /admin/v1/plans lists what exists`;
      return sendProblem(reply, { status: 404, code: "PLAN_UNKNOWN", detail });
    }
    return reply.send({ mode, key, versions: versions.toReversed().map(shownPlan) });
  });

  app.post("/admin/v1/plans/diff", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const body = PlansBodySchema.safeParse(request.body);
    if (!body.success) return sendProblem(reply, bodyInvalid(body.error));
    const given = readFile(body.data.file);
    if (given.kind === "problem") return sendProblem(reply, given.problem);
    const { mode } = auth.principal;
    const outcome = await diffCatalogue(control, mode, { ...given, now: clock.now() });
    switch (outcome.kind) {
      case "problem":
        return sendProblem(reply, outcome.problem);
      case "changes":
        return reply.send({ mode, changes: outcome.changes.map(shownChange) });
      default:
        return unreachable(outcome);
    }
  });

  app.post("/admin/v1/plans/apply", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const body = ApplyPlansBodySchema.safeParse(request.body);
    if (!body.success) return sendProblem(reply, bodyInvalid(body.error));
    const { file, reason, actor } = body.data;
    const given = readFile(file);
    if (given.kind === "problem") return sendProblem(reply, given.problem);
    const { mode } = auth.principal;
    const outcome = await applyCatalogue(control, mode, { ...given, reason, actor, now: clock.now() });
    switch (outcome.kind) {
      case "problem":
        return sendProblem(reply, outcome.problem);
      case "changes":
        return reply.send({ mode, changes: outcome.changes.map(shownChange) });
      default:
        return unreachable(outcome);
    }
  });
}

function bodyInvalid(error: z.ZodError): Problem {
  const problems = fieldProblemsOf(error, "/");
  const detail = problems.map(({ field, rule }) => `${field === "/" ? "the body" : field} ${rule}`).join("; ");
  return { status: 400, code: "BODY_INVALID", detail, problems };
}

/** A file that was read. */
export type FileReading = { readonly kind: "file" } & GivenFile;

/** The file, or a problem that names every mistake of it. */
export function readFile(text: string): FileReading | { readonly kind: "problem"; readonly problem: Problem } {
  const reading = parsePlansFile(text);
  if (reading.kind === "plans") return { kind: "file", file: reading.file, at: reading.at };
  const { problems } = reading;
  const detail =
    problems.length === 1 ? "the plans file has a problem" : `the plans file has ${problems.length} problems`;
  return { kind: "problem", problem: { status: 400, code: "PLANS_INVALID", detail, problems } };
}

function about({ key, version, digest, createdAt, createdBy }: CatalogueVersion): object {
  return { key, version, digest, createdAt: formatInstant(createdAt), createdBy };
}

function shownPlan(row: CatalogueVersion): object {
  const { plan, meterVersions } = row.body as PlanBody;
  return { ...about(row), plan, meterVersions };
}

/** `text`: the differences for people, one a line. */
function shownChange(change: CatalogueChange): object {
  return { ...change, text: change.differences.map(differenceText) };
}
