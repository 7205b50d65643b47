/** Who a request comes from. */
import { type Authenticator, type Principal, TallyhouseError } from "@tallyhouse/domain";
import type { FastifyRequest } from "fastify";
import type { AuthFailures } from "./auth-failures.ts";
import { clientAddressOf } from "./client-address.ts";
import type { Problem } from "./problem.ts";

export type Authentication =
  | { readonly kind: "principal"; readonly principal: Principal }
  | { readonly kind: "problem"; readonly problem: Problem };

const BEARER = /^bearer +(\S+) *$/i;
const STORE_RETRY_SECONDS = 1;

/** Reads `Authorization: Bearer` or, without that, `X-API-Key`. Unknown, malformed and revoked get one identical answer. */
export async function authenticate(
  request: FastifyRequest,
  ports: { authenticator: Authenticator; failures: AuthFailures; proxyHops: number },
): Promise<Authentication> {
  const token = tokenOf(request);
  if (token === undefined) {
    return refused({
      status: 401,
      code: "AUTH_REQUIRED",
      detail: "send a service token as Authorization: Bearer … or X-API-Key: …",
    });
  }
  const address = clientAddressOf(request, ports.proxyHops);
  const limited = refuseGuesses(ports.failures, { address, token });
  if (limited !== null) return refused(limited);
  try {
    const principal = await ports.authenticator.verify(token);
    ports.failures.record({ address, token, isGood: principal !== null });
    if (principal !== null) return { kind: "principal", principal };
    return refused({ status: 401, code: "AUTH_INVALID", detail: "the credential is not known" });
  } catch (error) {
    if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
    return refused({
      status: 503,
      code: "STORE_UNAVAILABLE",
      detail: "the credential cannot be checked now; nothing was stored, send the request again",
      retryAfterSeconds: STORE_RETRY_SECONDS,
    });
  }
}

/** The credential as presented; undefined when there is none in a known form. */
export function tokenOf(request: FastifyRequest): string | undefined {
  const bearer = BEARER.exec(request.headers.authorization ?? "")?.[1];
  const apiKey = request.headers["x-api-key"];
  return bearer ?? (typeof apiKey === "string" && apiKey !== "" ? apiKey : undefined);
}

/** 429 while too many unknown credentials come from this network; null when this one may be looked at. */
export function refuseGuesses(failures: AuthFailures, guess: { address: string; token: string }): Problem | null {
  const retryAfterSeconds = failures.retryAfterSeconds(guess.address, guess.token);
  if (retryAfterSeconds === null) return null;
  const detail = "too many unknown credentials came from this network; correct yours and try again later";
  return { status: 429, code: "AUTH_FAILURES_LIMITED", detail, retryAfterSeconds };
}

function refused(problem: Problem): Authentication {
  return { kind: "problem", problem };
}
