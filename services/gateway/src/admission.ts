/** What is decided by a request's headers alone, before its body is read. */
import { assert, type Authenticator, type Principal } from "@tallyhouse/domain";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { AuthFailures } from "./auth-failures.ts";
import { authenticate } from "./authenticate.ts";
import type { Budget, Share } from "./budget.ts";
import type { GatewayConfig } from "./config.ts";
import { type Coding, codingOf, inflatedBytesMax } from "./inflate.ts";
import { type Problem, sendProblem } from "./problem.ts";

/** What stands between a request's headers and its body: who sends it, how, and its share of the work in flight. */
export interface Admission {
  readonly principal: Principal;
  readonly share: Share;
  readonly coding: Coding;
  /** `Content-Length`; undefined for a body in chunks. */
  readonly announcedBytes: number | undefined;
}

const OVERLOAD_RETRY_SECONDS = 1;
const CHARSET = /;\s*charset\s*=\s*"?([^\s;"]+)/i;
/** JSON is UTF-8; the second is a part of it. */
const CHARSETS: ReadonlySet<string> = new Set(["utf-8", "utf8", "us-ascii"]);

/** Lets a request in before its body is read: who does not fit in, or is not known, is refused by the headers alone. */
export function addAdmission(
  scope: FastifyInstance,
  input: { config: GatewayConfig; authenticator: Authenticator; failures: AuthFailures; budget: Budget },
): (request: FastifyRequest) => Admission {
  const { config, budget, ...ports } = input;
  const admissions = new WeakMap<FastifyRequest, Admission>();
  scope.addHook("onRequest", async (request, reply) => {
    const { headers } = request;
    const coding = codingOf(headers["content-encoding"]);
    if (coding === null) return sendProblem(reply.header("accept-encoding", "gzip, deflate"), CODING_UNSUPPORTED);
    const charset = CHARSET.exec(headers["content-type"] ?? "")?.[1];
    if (charset !== undefined && !CHARSETS.has(charset.toLowerCase())) return sendProblem(reply, CHARSET_UNSUPPORTED);
    const length = headers["content-length"];
    const announcedBytes = length === undefined ? undefined : Number(length);
    const share = budget.enter(bytesAtMost({ announcedBytes, coding, config }));
    if (share === null) return sendProblem(reply, OVERLOADED);
    // "close" comes after the answer, and also when the caller has gone before it: listened for before anything is awaited, or
    // a caller that goes meanwhile would leave its share behind.
    reply.raw.once("close", () => share.answered());
    const authentication = await authenticate(request, { ...ports, proxyHops: config.PROXY_HOPS });
    if (authentication.kind === "problem") return sendProblem(reply, authentication.problem);
    admissions.set(request, { principal: authentication.principal, share, coding, announcedBytes });
  });
  return (request) => {
    const admission = admissions.get(request);
    assert(admission !== undefined, "a request reaches its route only through the hook");
    return admission;
  };
}

/** The bytes a body will take at most: what its header says, or the limit when it comes in chunks of untold length. */
function bytesAtMost(body: { announcedBytes: number | undefined; coding: Coding; config: GatewayConfig }): number {
  const { BODY_BYTES_MAX, INFLATED_BYTES_MAX } = body.config;
  const bytes = Math.min(body.announcedBytes ?? BODY_BYTES_MAX, BODY_BYTES_MAX);
  return body.coding === "identity" ? bytes : inflatedBytesMax(bytes, INFLATED_BYTES_MAX);
}

const CODING_UNSUPPORTED: Problem = {
  status: 415,
  code: "CONTENT_ENCODING_UNSUPPORTED",
  detail: "a body is sent plain, or with Content-Encoding gzip or deflate, one of them and once",
};

const CHARSET_UNSUPPORTED: Problem = {
  status: 415,
  code: "CONTENT_TYPE_UNSUPPORTED",
  detail: "JSON is sent as UTF-8; leave charset out or write charset=utf-8",
};

const OVERLOADED: Problem = {
  status: 503,
  code: "GATEWAY_OVERLOADED",
  detail: "too much is in flight; nothing was stored, send the request again",
  retryAfterSeconds: OVERLOAD_RETRY_SECONDS,
};
