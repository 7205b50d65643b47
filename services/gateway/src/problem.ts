/** Refusals of whole requests: values inside, RFC 9457 documents on the wire. */
import { STATUS_CODES } from "node:http";
import type { ProblemCode } from "@tallyhouse/domain";
import type { FastifyReply } from "fastify";

/** Why a request as a whole is refused. */
export interface Problem {
  readonly status: number;
  readonly code: ProblemCode;
  /** For the caller: what was wrong and what to do. */
  readonly detail: string;
  /** Set on every 503: when to try again. */
  readonly retryAfterSeconds?: number;
  /** Set on every 405: the methods that the path takes. */
  readonly allow?: string;
  /** Further members of the document. */
  readonly members?: Readonly<Record<string, unknown>>;
}

/** Answers a refused request. @see https://www.rfc-editor.org/rfc/rfc9457 (read 2026-11) */
export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.status === 401) void reply.header("www-authenticate", 'Bearer realm="tallyhouse"');
  if (problem.retryAfterSeconds !== undefined) void reply.header("retry-after", String(problem.retryAfterSeconds));
  if (problem.allow !== undefined) void reply.header("allow", problem.allow);
  return reply
    .code(problem.status)
    .type("application/problem+json")
    .send(JSON.stringify(problemDocument(problem, `/requests/${reply.request.id}`)));
}

/** The document; `instance` is the request's id, by which operators find it in the log. */
export function problemDocument(problem: Problem, instance?: string): Record<string, unknown> {
  const { status, code, detail, members } = problem;
  return { type: "about:blank", title: STATUS_CODES[status] ?? "Error", status, code, detail, instance, ...members };
}
