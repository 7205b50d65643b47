/** Reads, the page and the admin API: forwarded to the console, which checks credentials itself. */
import type { IncomingHttpHeaders } from "node:http";
import replyFrom from "@fastify/reply-from";
import type { Logger } from "@tallyhouse/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { AuthFailures } from "./auth-failures.ts";
import { refuseGuesses, tokenOf } from "./authenticate.ts";
import { createBudget } from "./budget.ts";
import { clientAddressOf } from "./client-address.ts";
import type { GatewayConfig } from "./config.ts";
import { refuseOutsiders } from "./loopback.ts";
import { type Problem, sendProblem } from "./problem.ts";

const CONSOLE_RETRY_SECONDS = 2;
const CONNECT_TIMEOUT_MS = 1_000;

const UNAVAILABLE: Problem = {
  status: 503,
  code: "CONSOLE_UNAVAILABLE",
  detail: "the console does not answer; usage events are still taken. Try again",
  retryAfterSeconds: CONSOLE_RETRY_SECONDS,
};
const OVERLOADED: Problem = {
  status: 503,
  code: "GATEWAY_OVERLOADED",
  detail: "too many requests wait for the console; try again",
  retryAfterSeconds: CONSOLE_RETRY_SECONDS,
};
const NO_SUCH_PATH: Problem = { status: 404, code: "NOT_FOUND", detail: "this path leads nowhere" };

/**
 * Adds the forwarded routes. A body is read whole before it is passed on: as a stream it would be cut, and the caller's connection
 * with it, when the console cannot be reached.
 */
export async function addForwarding(
  scope: FastifyInstance,
  input: { config: GatewayConfig; logger: Logger; failures: AuthFailures },
): Promise<void> {
  const { config, logger, failures } = input;
  // FORWARDS_MAX bodies of BODY_BYTES_MAX are the most that waits here: 100 MB by default.
  const budget = createBudget({ requestsMax: config.FORWARDS_MAX, bytesMax: Infinity });
  await scope.register(replyFrom, {
    base: config.CONSOLE_URL,
    undici: {
      connections: config.FORWARDS_MAX,
      headersTimeout: config.CONSOLE_TIMEOUT_MS,
      bodyTimeout: config.CONSOLE_TIMEOUT_MS,
      connect: { timeout: CONNECT_TIMEOUT_MS },
    },
    destroyAgent: true,
    disableRequestLogging: true,
    // The caller retries: a read repeated here would hold its place ten times as long in an outage.
    retryMethods: [],
  });
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  // Before the body is read, and before anything is awaited: the response's "close" always gives the share back.
  scope.addHook("onRequest", async (request, reply) => {
    if (!isPlainPath(request.raw.url ?? "")) return sendProblem(reply, NO_SUCH_PATH);
    const guess = guessOf(request, config.PROXY_HOPS);
    const limited = guess === null ? null : refuseGuesses(failures, guess);
    if (limited !== null) return sendProblem(reply, limited);
    const share = budget.enter(0);
    if (share === null) return sendProblem(reply, OVERLOADED);
    reply.raw.once("close", () => share.answered());
  });
  // The console's word about the credential counts as ours: else guessing would only move to the reads.
  scope.addHook("onResponse", async (request, reply) => {
    const guess = guessOf(request, config.PROXY_HOPS);
    if (guess === null) return;
    if (reply.statusCode === 401) failures.record({ ...guess, isGood: false });
    if (reply.statusCode < 300) failures.record({ ...guess, isGood: true });
  });

  const forward = (request: FastifyRequest, reply: FastifyReply): FastifyReply =>
    reply.from(undefined, {
      ...(request.body === undefined
        ? {}
        : { body: request.body, contentType: request.headers["content-type"] ?? "application/octet-stream" }),
      rewriteRequestHeaders: (_request, headers) => forwardedHeaders(request, headers),
      rewriteHeaders: ({ connection: _connection, "keep-alive": _keepAlive, ...headers }) => headers,
      onError: (failed, { error }) => {
        logger.warn({ err: error, requestId: request.id }, "console unavailable");
        sendProblem(failed as FastifyReply, UNAVAILABLE);
      },
    });
  const forwardLocally = (request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const problem = refuseOutsiders(request);
    return problem === null ? forward(request, reply) : sendProblem(reply, problem);
  };
  scope.get("/", forwardLocally);
  scope.get("/assets/*", forwardLocally);
  scope.get("/v1/usage", forward);
  scope.get("/v1/usage/*", forward);
  scope.get("/api/usage/current-period", forward);
  scope.all("/admin/*", forward);
}

/** The credential of a request, where the console asks for one: the page and its assets have no sign-in, so their 200 says nothing. */
function guessOf(request: FastifyRequest, proxyHops: number): { address: string; token: string } | null {
  const token = tokenOf(request);
  if (token === undefined || !/^\/(?:v1|api|admin)\//.test(request.raw.url ?? "")) return null;
  return { address: clientAddressOf(request, proxyHops), token };
}

/** A usage event by source and id, or a customer: segments of their own to the console's router, whatever is encoded in them. */
const OPAQUE_PATHS = [
  /^\/(?:v1\/usage|admin\/v1)\/events\/[^/]+\/[^/]+(?:\/(?:void|replace))?$/,
  /^\/admin\/v1\/customers\/[^/]+(?:\/[a-z-]+)*$/,
];

/**
 * Whether the console will see the very path that the router matched here. `..` and its encodings would be resolved on the way,
 * so that `/v1/usage/../..` opened the page to outsiders. An encoded slash leads nowhere but in source, id and customer, which the console's
 * router decodes behind its choice of the route; `..` beside a slash, encoded or not, is refused there too, because reply-from
 * does so: such a source or id goes into query or body.
 */
function isPlainPath(url: string): boolean {
  const path = url.split("?", 1)[0] ?? "";
  const resolved = URL.parse(path, "http://console.invalid");
  if (resolved?.host !== "console.invalid" || resolved.pathname !== path || path.includes("//")) return false;
  const isOpaque = OPAQUE_PATHS.some((pattern) => pattern.test(path));
  return isOpaque ? !/\/\.\.|\.\.\//.test(decodeURIComponent(path)) : !/%(?:2e|2f|5c)/i.test(path);
}

/** Bound to one connection, or said about the caller by the caller: never passed on. */
const DROPPED_HEADERS = [
  "expect",
  "forwarded",
  "keep-alive",
  "proxy-authorization",
  "te",
  "trailer",
  "upgrade",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
];

function forwardedHeaders(request: FastifyRequest, headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const kept: IncomingHttpHeaders = { ...headers };
  for (const name of DROPPED_HEADERS) delete kept[name];
  if (request.method === "GET" || request.method === "HEAD") {
    // Their body is not read, so it cannot be passed on, and its length must not be promised.
    delete kept["content-length"];
    delete kept["content-type"];
    delete kept["transfer-encoding"];
  }
  return { ...kept, "x-forwarded-for": request.ip, "x-request-id": request.id };
}
