import { STATUS_CODES } from "node:http";
import type { ErrorCode, ProblemCode } from "@tallyhouse/domain";
import type { FastifyReply } from "fastify";
import type { z } from "zod";

/** One wrong field of a request: where, and which rule it broke. `line` only for a meters or plans file, counted from 1. */
export interface FieldProblem {
  readonly field: string;
  readonly rule: string;
  readonly line?: number;
}

/** A refusal as a value; {@link sendProblem} is the one place that makes an RFC 9457 document of it. */
export interface Problem {
  readonly status: number;
  readonly code: ProblemCode | Extract<ErrorCode, "METERS_INVALID">;
  /** One sentence for the caller: what was wrong and what to do. */
  readonly detail: string;
  /** Every wrong field; the document's member `problems`. */
  readonly problems?: readonly FieldProblem[];
  readonly retryAfterSeconds?: number;
}

/** Answers with the problem document. @see https://www.rfc-editor.org/rfc/rfc9457 (read 2026-11) */
export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  const { status, code, detail, problems, retryAfterSeconds } = problem;
  if (status === 401) void reply.header("www-authenticate", 'Bearer realm="tallyhouse"');
  if (retryAfterSeconds !== undefined) void reply.header("retry-after", String(retryAfterSeconds));
  return reply
    .code(status)
    .type("application/problem+json")
    .send(
      JSON.stringify({
        type: "about:blank",
        title: STATUS_CODES[status] ?? "Error",
        status,
        code,
        detail,
        ...(problems === undefined ? {} : { problems }),
      }),
    );
}

/** A 400 that names every wrong field of a query at once. */
export function queryInvalid(problems: readonly FieldProblem[]): Problem {
  const detail = problems.map(({ field, rule }) => `${field} ${rule}`).join("; ");
  return { status: 400, code: "QUERY_INVALID", detail, problems };
}

/** What a schema refused, by JSON pointer (`/`) for a body or by name (`.`) for a query. */
export function fieldProblemsOf(error: z.ZodError, separator: "." | "/"): FieldProblem[] {
  const start = separator === "/" ? "/" : "";
  return error.issues.flatMap((issue) => {
    const path = issue.path.map(String);
    return issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => ({ field: start + [...path, key].join(separator), rule: "is not known here" }))
      : [{ field: start + path.join(separator), rule: issue.message }];
  });
}
