/** The console's one door: builds everything, listens nowhere. */
import {
  type AnalyticsStore,
  type Authenticator,
  type ControlStore,
  type EventLog,
  formatInstant,
  TallyhouseError,
} from "@tallyhouse/domain";
import {
  answerHealth,
  type Clock,
  type Component,
  HEALTH_PATHS,
  type HealthSources,
  type Logger,
  type Registry,
} from "@tallyhouse/runtime";
import Fastify, { type FastifyError, type FastifyInstance } from "fastify";
import type { AuditedStream } from "./audit/audit-cut.ts";
import { addAuditRoutes } from "./audit/audit-routes.ts";
import { createAudits } from "./audit/audits.ts";
import { authenticate } from "./auth.ts";
import { addBillingRoutes } from "./billing-routes.ts";
import type { ConsoleConfig } from "./config.ts";
import { addCorrectionRoutes } from "./corrections-routes.ts";
import { addCustomerRoutes } from "./customers/customers-routes.ts";
import { addFindRoutes } from "./find-routes.ts";
import { addCheckRoute } from "./meter-check-route.ts";
import { createEndWatch } from "./meter-ends.ts";
import { addMeterRoutes } from "./meters-routes.ts";
import { addOpenApi } from "./openapi.ts";
import { createOutbox } from "./outbox.ts";
import { addPlanRoutes } from "./plans/plans-routes.ts";
import { addPageRoute } from "./page-route.ts";
import { type Problem, sendProblem } from "./problem.ts";
import { PATH_PARAMETER_MAX } from "./raw-rows.ts";
import { readReadiness } from "./readiness.ts";
import { readFates, readStatus } from "./status.ts";
import { addSimulateRoute } from "./simulate-route.ts";
import { addStreamRoutes } from "./stream-routes.ts";
import { createSweeper } from "./sweeper.ts";
import { addSweepRoutes } from "./sweeps-routes.ts";
import { addUsageRoutes } from "./usage-routes.ts";

export {
  AUDIT_CHECKS,
  type AuditCheck,
  type AuditInput,
  type AuditReport,
  type CheckResult,
  runAudit,
} from "./audit/run-audit.ts";
export { type ConsoleConfig, ConsoleConfigSchema } from "./config.ts";

/** A meters file of a thousand meters has some 300 kB. */
const BODY_BYTES_MAX = 1_048_576;
const REQUEST_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_TIMEOUT_MS = 72_000;
const STORE_RETRY_SECONDS = 1;
const SECONDS_PER_HOUR = 3_600;
const INTERNAL: Problem = { status: 500, code: "INTERNAL", detail: "something went wrong on our side" };

/** What the console works with. Every port is opened and closed by the composer. */
export interface ConsolePorts {
  readonly analytics: AnalyticsStore;
  /** The same store for SELECTs of minutes, beside which short ones are answered. Absent: `analytics`. */
  readonly background?: AnalyticsStore;
  readonly control: ControlStore;
  readonly log: EventLog;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Registry;
}

/**
 * Builds the HTTP application (usage API, admin API, the page), the outbox, the sweeper and the audits. Opens nothing: the composer
 * listens, on a loopback address only, and runs the others.
 */
export async function buildConsole(
  config: ConsoleConfig,
  ports: ConsolePorts,
): Promise<{ app: FastifyInstance; outbox: Component; sweeper: Component; audits: Component }> {
  const { stream, controlKey: key } = config;
  const app = Fastify({
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    forceCloseConnections: "idle",
    return503OnClosing: true,
    routerOptions: { maxParamLength: PATH_PARAMETER_MAX },
  });
  app.addHook("onRequest", (_request, reply, done) => {
    void reply.header("x-content-type-options", "nosniff").header("cache-control", "no-store");
    done();
  });
  addErrorHandlers(app, ports.logger);
  addOpenApi(app);
  addUsageRoutes(app, { ...ports, stream });
  addBillingRoutes(app, { ...ports, stream });
  // Statements of seconds: on the connection beside which short ones are answered.
  addSimulateRoute(app, { ...ports, analytics: ports.background ?? ports.analytics, stream });
  const maxAheadMs = config.MAX_AHEAD_SECONDS * 1_000;
  addMeterRoutes(app, { ...ports, stream, maxAheadMs });
  addCheckRoute(app, { ...ports, stream, maxAheadMs });
  addPlanRoutes(app, ports);
  addStreamRoutes(app, { ...ports, stream });
  addCorrectionRoutes(app, { ...ports, stream });
  addFindRoutes(app, { ...ports, stream });
  addSweepRoutes(app, ports);
  addCustomerRoutes(app, ports);
  const audits = createAudits(
    { stream: auditedStreamOf(config), hour: config.CONSOLE_AUDIT_HOUR },
    { ...ports, analytics: ports.background ?? ports.analytics },
  );
  addAuditRoutes(app, { audits, authenticator: ports.authenticator });
  addPageRoute(app, { ...ports, stream, refreshSeconds: config.CONSOLE_PAGE_REFRESH_SECONDS });
  app.get("/admin/v1/status", async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const { watermarkAt, ...status } = await readStatus({ ...ports, stream });
    return reply.send({
      ...status,
      statuses: await readFates(ports.analytics),
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      lagSeconds: watermarkAt === null ? null : Math.max(0, (ports.clock.now() - watermarkAt) / 1_000),
    });
  });
  addHealthRoutes(app, { readiness: () => readReadiness({ ...ports, stream }), metrics: ports.metrics });
  await app.ready();
  const outbox = createOutbox({ streamId: stream.streamId, key, pollMs: config.CONSOLE_OUTBOX_POLL_MS }, ports);
  const sweeper = createSweeper({ hour: config.CONSOLE_SWEEP_HOUR }, { ...ports, stream });
  return { app, outbox: together(outbox, createEndWatch({ stream, maxAheadMs }, ports)), sweeper, audits };
}

/** Two parts with one life, under the first one's name. */
function together(first: Component, second: Component): Component {
  return {
    name: first.name,
    run: async (signal) => void (await Promise.all([first.run(signal), second.run(signal)])),
    close: async () => void (await Promise.all([first.close(), second.close()])),
  };
}

/** What an audit is told of the stream: the same settings as the aggregator's, never what the aggregator stored. */
export function auditedStreamOf(config: Omit<ConsoleConfig, "controlKey">): AuditedStream {
  return {
    ...config.stream,
    predecessors: config.stream.predecessors ?? [],
    horizonSeconds: config.DEDUPE_HORIZON_HOURS * SECONDS_PER_HOUR,
    maxAgeSeconds: config.MAX_AGE_HOURS * SECONDS_PER_HOUR,
    maxAheadSeconds: config.MAX_AHEAD_SECONDS,
  };
}

/** For probes and Prometheus inside the deployment: the gateway forwards none of these paths. */
function addHealthRoutes(app: FastifyInstance, sources: HealthSources): void {
  for (const path of HEALTH_PATHS) {
    app.get(path, async (_request, reply) => {
      const answer = await answerHealth(path, sources);
      return reply.code(answer.status).type(answer.contentType).send(answer.body);
    });
  }
}

/** The boundary of the HTTP application: outages become 503, our bugs 500 without a word about their insides. */
function addErrorHandlers(app: FastifyInstance, logger: Logger): void {
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, { status: 404, code: "NOT_FOUND", detail: `there is no ${request.method} at this path` }),
  );
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const problem = problemOf(error);
    if (problem.status >= 500) logger.error({ err: error, route: request.routeOptions.url }, "request failed");
    return sendProblem(reply, problem);
  });
}

function problemOf(error: FastifyError | TallyhouseError): Problem {
  if (error instanceof TallyhouseError) {
    const isOutage =
      error.action === "retry" && (error.code === "STORE_UNAVAILABLE" || error.code === "LOG_UNAVAILABLE");
    if (isOutage) {
      const detail = "a store does not answer; nothing was lost, try again";
      return { status: 503, code: "STORE_UNAVAILABLE", detail, retryAfterSeconds: STORE_RETRY_SECONDS };
    }
    return INTERNAL;
  }
  const known: readonly Problem[] = [
    { status: 400, code: "BODY_INVALID", detail: "the body is no JSON" },
    { status: 413, code: "BODY_TOO_LARGE", detail: `a body has at most ${BODY_BYTES_MAX} bytes` },
    { status: 415, code: "CONTENT_TYPE_UNSUPPORTED", detail: "send application/json" },
  ];
  const problem = known.find(({ status }) => status === error.statusCode);
  return problem ?? INTERNAL;
}
