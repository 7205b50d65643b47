import { type Authenticator, formatInstant, type Mode } from "@tallyhouse/domain";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { authenticate } from "../auth.ts";
import { sendProblem } from "../problem.ts";
import type { Audits, ListedAudit } from "./audits.ts";
import { AUDIT_CHECKS } from "./run-audit.ts";

/** Below the gateway's CONSOLE_TIMEOUT_MS: beyond it the audit goes on, and its row is asked for. */
const WAIT_MS = 20_000;

/** Which checks; all of them when absent. */
export const AuditBodySchema = z
  .strictObject({
    checks: z
      .array(z.enum(AUDIT_CHECKS))
      .min(1)
      .default([...AUDIT_CHECKS]),
  })
  .default({ checks: [...AUDIT_CHECKS] });

/** `/admin/v1/audits`: begin one, list them. They judge both modes; differing rows are shown to live tokens alone. */
export function addAuditRoutes(app: FastifyInstance, input: { audits: Audits; authenticator: Authenticator }): void {
  const { audits, authenticator } = input;

  app.post("/admin/v1/audits", async (request, reply) => {
    const auth = await authenticate(request, authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const body = AuditBodySchema.safeParse(request.body ?? undefined);
    if (!body.success) {
      const detail = `the body is {} or { "checks": [ … ] } with checks of ${AUDIT_CHECKS.join(", ")}`;
      return sendProblem(reply, { status: 400, code: "BODY_INVALID", detail });
    }
    const begun = await audits.begin(body.data.checks);
    if (begun === null) {
      const detail = "this console runs an audit already; wait for it, GET /admin/v1/audits shows it";
      return sendProblem(reply, { status: 409, code: "AUDIT_RUNNING", detail });
    }
    const isDone = await isSettledWithin(begun.done, WAIT_MS);
    const row = (await audits.list()).find(({ id }) => id === begun.id);
    return reply.code(isDone ? 200 : 202).send(row === undefined ? {} : shown(row, auth.principal.mode));
  });

  app.get("/admin/v1/audits", async (request, reply) => {
    const auth = await authenticate(request, authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const rows = await audits.list();
    return reply.send({ audits: rows.map((row) => shown(row, auth.principal.mode)) });
  });
}

async function isSettledWithin(done: Promise<void>, waitMs: number): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => late.resolve(false), waitMs);
  try {
    return await Promise.race([done.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A test token gets the numbers: rows may be of live customers. */
function shown(row: ListedAudit, mode: Mode): Readonly<Record<string, unknown>> {
  const { startedAt, finishedAt, checks, ...rest } = row;
  return {
    ...rest,
    startedAt: formatInstant(startedAt.getTime()),
    finishedAt: finishedAt === null ? null : formatInstant(finishedAt.getTime()),
    checks:
      mode === "live" || checks === null
        ? checks
        : checks.map((check) => ({ ...check, examples: [], statement: null })),
  };
}
