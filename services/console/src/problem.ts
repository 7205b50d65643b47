import type { ErrorCode, ProblemCode } from "@tallyhouse/domain";
import type { FastifyReply } from "fastify";

/** One wrong field of a request: where, and which rule it broke. `line` only for a meters file, counted from 1. */
export interface FieldProblem {
  readonly field: string;
  readonly rule: string;
  readonly line?: number;
}

/** A refusal as a value; {@link sendProblem} is the one place that makes an RFC 9457 document of it. */
export interface Problem {
  readonly status: number;
  readonly code: ProblemCode | Extract<ErrorCode, "METERS_INVALID" | "METER_FROM_TOO_EARLY">;
  /** One sentence for the caller: what was wrong and what to do. */
  readonly detail: string;
  readonly errors?: readonly FieldProblem[];
  readonly retryAfterSeconds?: number;
}

const TITLES: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  409: "Conflict",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

/** Answers with the problem document. @see https://www.rfc-editor.org/rfc/rfc9457 (read 2026-11) */
export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  const { status, code, detail, errors, retryAfterSeconds } = problem;
  if (status === 401) void reply.header("www-authenticate", 'Bearer realm="tallyhouse"');
  if (retryAfterSeconds !== undefined) void reply.header("retry-after", String(retryAfterSeconds));
  return reply
    .code(status)
    .type("application/problem+json")
    .send(
      JSON.stringify({
        type: "about:blank",
        title: TITLES[status] ?? "Error",
        status,
        code,
        detail,
        ...(errors === undefined ? {} : { errors }),
      }),
    );
}

/** A 400 that names every wrong field of a query at once. */
export function queryInvalid(errors: readonly FieldProblem[]): Problem {
  const detail = errors.map(({ field, rule }) => `${field} ${rule}`).join("; ");
  return { status: 400, code: "QUERY_INVALID", detail, errors };
}
