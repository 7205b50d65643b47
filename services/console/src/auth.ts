import type { Authenticator, Principal } from "@tallyhouse/domain";
import type { FastifyRequest } from "fastify";
import type { Problem } from "./problem.ts";

export type Authentication =
  | { readonly kind: "principal"; readonly principal: Principal }
  | { readonly kind: "problem"; readonly problem: Problem };

const BEARER = /^Bearer ([\x21-\x7e]{1,256})$/i;

/**
 * The principal of a service token in `Authorization: Bearer` or `X-API-Key`, never in the URL. Unknown, malformed and revoked
 * tokens get one identical answer.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function authenticate(request: FastifyRequest, authenticator: Authenticator): Promise<Authentication> {
  const { authorization } = request.headers;
  const apiKey = request.headers["x-api-key"];
  if (authorization === undefined && apiKey === undefined) {
    const detail = "send the operator's service token as `Authorization: Bearer svc_…`";
    return { kind: "problem", problem: { status: 401, code: "AUTH_REQUIRED", detail } };
  }
  const token = authorization === undefined ? apiKey : BEARER.exec(authorization)?.[1];
  const principal = typeof token === "string" ? await authenticator.verify(token) : null;
  if (principal !== null) return { kind: "principal", principal };
  return { kind: "problem", problem: { status: 401, code: "AUTH_INVALID", detail: "this service token is not valid" } };
}
