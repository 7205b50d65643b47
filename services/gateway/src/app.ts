/** The gateway's one door: builds everything, listens nowhere. */
import { randomUUID } from "node:crypto";
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Authenticator, EventLog } from "@tallyhouse/domain";
import type { Clock, Logger, Readiness, Registry } from "@tallyhouse/runtime";
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { createAuthFailures } from "./auth-failures.ts";
import { createBudget } from "./budget.ts";
import type { GatewayConfig } from "./config.ts";
import { addEventsRoute } from "./events-route.ts";
import { addForwarding } from "./forward.ts";
import { addHealthRoutes, createReadiness } from "./health.ts";
import { createGatewayMetrics, type GatewayMetrics } from "./metrics.ts";
import { addOpenApi } from "./openapi.ts";
import { type Problem, problemDocument, sendProblem } from "./problem.ts";
import { bodyTooLarge } from "./receive-body.ts";

export { type GatewayConfig, GatewayConfigSchema } from "./config.ts";

/** What the gateway works with. Every port is opened and closed by the composer, the log after the gateway. */
export interface GatewayPorts {
  readonly log: EventLog;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Registry;
  /** What `/readyz` says; by default whether the log and the console answer. */
  readonly readiness?: () => Promise<Readiness>;
  /** Part → a question to it, for the default of `readiness`. */
  readonly probes?: Readonly<Record<string, () => Promise<unknown>>>;
}

/** How often open connections are looked over for requests that take too long. */
const CONNECTIONS_CHECK_MS = 1_000;
const STOPPING_RETRY_SECONDS = 1;

/**
 * Builds the HTTP application: ingest, forwarding to the console, health. Opens nothing: the composer listens, and closes it
 * before the log. `close` takes no further connection, answers what was taken (each answer with `connection: close`) and
 * cuts what is left after CLOSE_GRACE_MS; a request cut then was not answered, so its sender resends it.
 */
export async function buildGateway(config: GatewayConfig, ports: GatewayPorts): Promise<FastifyInstance> {
  const budget = createBudget({
    requestsMax: config.INFLIGHT_REQUESTS_MAX,
    bytesMax: config.INFLIGHT_BYTES_MAX,
  });
  const metrics = createGatewayMetrics(ports.metrics, () => budget.bytesHeld());
  const app = Fastify({
    logger: false,
    genReqId: () => randomUUID(),
    bodyLimit: config.BODY_BYTES_MAX,
    requestTimeout: config.REQUEST_TIMEOUT_MS,
    keepAliveTimeout: config.KEEP_ALIVE_TIMEOUT_MS,
    http: {
      headersTimeout: Math.ceil(config.REQUEST_TIMEOUT_MS / 3),
      connectionsCheckingInterval: Math.min(CONNECTIONS_CHECK_MS, config.REQUEST_TIMEOUT_MS),
    },
    forceCloseConnections: "idle",
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => refuse(error, request, reply),
    clientErrorHandler: (error, socket) => refuseConnection(error, socket, metrics),
  });
  const refuse = (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    const problem = problemOf(error, config);
    if (problem.status >= 500) ports.logger.error({ err: error, requestId: request.id }, "request failed");
    sendProblem(reply, problem);
  };
  app.server.maxConnections = config.CONNECTIONS_MAX;
  app.setErrorHandler<FastifyError>(refuse);
  app.setNotFoundHandler((request, reply) => sendProblem(reply, unknownRoute(request)));
  // Hooks of every request call back: a promise each would cost more than what they do.
  app.addHook("onResponse", (_request, reply, done) => {
    metrics.requests.inc({ status: String(reply.statusCode) });
    done();
  });
  addStop(app, config.CLOSE_GRACE_MS);

  addOpenApi(app, config);
  const failures = createAuthFailures(ports.clock);
  await app.register(async (scope) => addEventsRoute(scope, { config, ports, failures, budget, metrics }));
  await app.register(async (scope) => addForwarding(scope, { config, failures, logger: ports.logger }));
  const readiness =
    ports.readiness ??
    createReadiness({
      log: ports.log,
      consoleUrl: config.CONSOLE_URL,
      timeoutMs: config.READINESS_TIMEOUT_MS,
      probes: ports.probes,
    });
  addHealthRoutes(app, { readiness, metrics: ports.metrics });
  await app.ready();
  return app;
}

/** From the call of `close` on: no new work, every answer ends its connection, and nothing waits longer than the grace. */
function addStop(app: FastifyInstance, closeGraceMs: number): void {
  let isStopping = false;
  let cut: NodeJS.Timeout | undefined;
  // Node ends connections that are idle between requests, but waits for those that have made none yet; browsers open such.
  const unused = new Set<Socket>();
  app.server.on("connection", (socket) => {
    unused.add(socket);
    socket.once("close", () => unused.delete(socket));
  });
  app.server.on("request", ({ socket }) => unused.delete(socket));
  app.addHook("preClose", async () => {
    isStopping = true;
    for (const socket of unused) socket.destroy();
    cut = setTimeout(() => app.server.closeAllConnections(), closeGraceMs);
  });
  app.addHook("onClose", async () => clearTimeout(cut));
  app.addHook("onRequest", (_request, reply, done) => {
    if (!isStopping) {
      done();
      return;
    }
    const detail = "the gateway is stopping; nothing was stored, send the request again";
    sendProblem(reply, {
      status: 503,
      code: "GATEWAY_STOPPING",
      detail,
      retryAfterSeconds: STOPPING_RETRY_SECONDS,
    });
  });
  // oxlint-disable-next-line max-params -- the shape of Fastify's hook
  app.addHook("onSend", (_request, reply, _payload, done) => {
    void reply.header("x-content-type-options", "nosniff");
    // Else a caller that keeps its connection alive would keep the stop waiting.
    if (isStopping) void reply.header("connection", "close");
    done();
  });
}

/** What the HTTP framework throws, in our codes. Anything it does not know is a bug of ours: 500, and nothing of it shown. */
function problemOf(error: FastifyError, config: GatewayConfig): Problem {
  switch (error.code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return bodyTooLarge(config.BODY_BYTES_MAX);
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      return {
        status: 415,
        code: "CONTENT_TYPE_UNSUPPORTED",
        detail:
          "send application/json, application/x-ndjson, application/cloudevents+json or application/cloudevents-batch+json",
      };
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
    case "ECONNRESET":
      return { status: 400, code: "BODY_INVALID", detail: "the body ended before its announced length" };
    case "FST_ERR_BAD_URL":
    case "FST_ERR_MAX_PARAM_LENGTH":
      return { status: 400, code: "REQUEST_INVALID", detail: "the request's path cannot be read" };
    default:
      return { status: 500, code: "INTERNAL", detail: "something went wrong on our side; nothing is confirmed" };
  }
}

const METHODS_OF_PATHS: ReadonlyMap<string, string> = new Map([
  ["/v1/events", "POST"],
  ["/v1/usage", "GET, HEAD"],
  ["/", "GET, HEAD"],
  ["/livez", "GET, HEAD"],
  ["/readyz", "GET, HEAD"],
  ["/metrics", "GET, HEAD"],
  ["/openapi.json", "GET, HEAD"],
]);

function unknownRoute(request: FastifyRequest): Problem {
  const path = request.url.split("?", 1)[0] ?? "";
  const allowed = METHODS_OF_PATHS.get(path);
  return allowed === undefined
    ? { status: 404, code: "NOT_FOUND", detail: "there is nothing at this path" }
    : { status: 405, code: "METHOD_NOT_ALLOWED", detail: `this path takes ${allowed}`, allow: allowed };
}

/** Requests that never became one: too slow, too long, no HTTP. Answered on the bare connection, which then ends. */
function refuseConnection(error: Error & { code?: string }, socket: Socket, metrics: GatewayMetrics): void {
  if (error.code === "ECONNRESET" || socket.destroyed) return;
  const problem = connectionProblem(error.code);
  metrics.requests.inc({ status: String(problem.status) });
  const body = JSON.stringify(problemDocument(problem));
  if (socket.writable) {
    socket.write(
      [
        `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? "Error"}`,
        "content-type: application/problem+json",
        `content-length: ${Buffer.byteLength(body)}`,
        "connection: close",
        "",
        body,
      ].join("\r\n"),
    );
  }
  socket.destroySoon();
}

function connectionProblem(code: string | undefined): Problem {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT")
    return { status: 408, code: "REQUEST_TIMEOUT", detail: "the request took too long to arrive" };
  if (code === "HPE_HEADER_OVERFLOW")
    return { status: 431, code: "REQUEST_INVALID", detail: "the request's headers are too long" };
  return { status: 400, code: "REQUEST_INVALID", detail: "this is no HTTP request" };
}
