/** `POST /v1/events`: the way into the log. */
import {
  assert,
  type Authenticator,
  type EventLog,
  type LogRecord,
  type Principal,
  unreachable,
} from "@tallyhouse/domain";
import type { Clock, Logger } from "@tallyhouse/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { acceptEvent, type Acceptance } from "./accept.ts";
import { type AppendOutcome, appendWithin } from "./append.ts";
import { authenticate } from "./authenticate.ts";
import { type BodyReading, MEDIA_TYPES, type MediaType, readBody } from "./body.ts";
import type { Budget, Share } from "./budget.ts";
import type { GatewayConfig } from "./config.ts";
import type { GatewayMetrics } from "./metrics.ts";
import { type Problem, sendProblem } from "./problem.ts";

interface EventsPorts {
  readonly log: EventLog;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What stands between a request's headers and its body: who sends it, and its share of the work in flight. */
interface Admission {
  readonly principal: Principal;
  readonly share: Share;
}

const OVERLOAD_RETRY_SECONDS = 1;
const LOG_RETRY_SECONDS = 2;
/** A full disk is not emptied in seconds. */
const LOG_FULL_RETRY_SECONDS = 30;

/** Adds the route with body parsers and hooks of its own: give it a scope to itself. */
export function addEventsRoute(
  scope: FastifyInstance,
  input: { config: GatewayConfig; ports: EventsPorts; budget: Budget; metrics: GatewayMetrics },
): void {
  const { config, ports, metrics } = input;
  const admissionOf = addAdmission(scope, input);
  scope.removeAllContentTypeParsers();
  for (const mediaType of Object.keys(MEDIA_TYPES) as MediaType[]) {
    scope.addContentTypeParser(mediaType, { parseAs: "buffer" }, (_request, body, done) =>
      done(null, readBody(body as Buffer, mediaType, config.EVENTS_PER_REQUEST_MAX)),
    );
  }
  scope.post("/v1/events", async (request, reply) => {
    const { principal, share } = admissionOf(request);
    const body = (request.body ?? EMPTY_BODY) as BodyReading;
    if (body.kind === "problem") return sendProblem(reply, body.problem);
    const context = {
      mode: principal.mode,
      cloudEventsOnly: MEDIA_TYPES[body.mediaType].cloudEvents,
      receivedAt: ports.clock.now(),
      partitionCount: ports.log.partitionCount,
    };
    const acceptances = body.events.map((event) => acceptEvent(event, context));
    const records = acceptances.flatMap((acceptance) => (acceptance.kind === "accepted" ? [acceptance.record] : []));
    metrics.events.inc({ result: "rejected" }, acceptances.length - records.length);
    if (records.length === 0) return sendProblem(reply, allRejected(acceptances));
    const outcome = await append(records, share, request);
    switch (outcome.kind) {
      case "durable":
        metrics.events.inc({ result: "accepted" }, records.length);
        // Only here, after the log's word: a 202 before it would be lost by a crash in between (G1).
        return answer(reply, acceptances);
      case "unknown":
        metrics.events.inc({ result: "unanswered" }, records.length);
        ports.logger.warn({ err: outcome.cause, requestId: request.id, events: records.length }, "append failed");
        return sendProblem(reply, appendProblem(outcome.code));
      default:
        return unreachable(outcome);
    }
  });

  async function append(records: readonly LogRecord[], share: Share, request: FastifyRequest): Promise<AppendOutcome> {
    const stopTimer = metrics.appendSeconds.startTimer();
    const { outcome, settled } = appendWithin({
      log: ports.log,
      records,
      timeoutMs: config.APPEND_TIMEOUT_MS,
      onLateBug: (error) => ports.logger.error({ err: error, requestId: request.id }, "append failed after its time"),
    });
    share.holdUntil(settled);
    try {
      return await outcome;
    } finally {
      stopTimer();
    }
  }
}

/** Lets a request in before its body is read: who does not fit in, or is not known, is refused by the headers alone. */
function addAdmission(
  scope: FastifyInstance,
  input: { config: GatewayConfig; ports: EventsPorts; budget: Budget },
): (request: FastifyRequest) => Admission {
  const { config, ports, budget } = input;
  const admissions = new WeakMap<FastifyRequest, Admission>();
  scope.addHook("onRequest", async (request, reply) => {
    const encoding = request.headers["content-encoding"];
    if (encoding !== undefined && encoding !== "identity") return sendProblem(reply, COMPRESSED);
    const share = budget.enter(announcedBytes(request, config.BODY_BYTES_MAX));
    if (share === null) return sendProblem(reply, OVERLOADED);
    // "close" comes after the answer, and also when the caller has gone before it: listened for before anything is awaited, or
    // a caller that goes meanwhile would leave its share behind.
    reply.raw.once("close", () => share.answered());
    const authentication = await authenticate(request, ports.authenticator);
    if (authentication.kind === "problem") return sendProblem(reply, authentication.problem);
    admissions.set(request, { principal: authentication.principal, share });
  });
  return (request) => {
    const admission = admissions.get(request);
    assert(admission !== undefined, "a request reaches its route only through the hook");
    return admission;
  };
}

const EMPTY_BODY: BodyReading = {
  kind: "problem",
  problem: { status: 400, code: "BODY_INVALID", detail: "the body is empty; send one event or a list of events" },
};

const COMPRESSED: Problem = {
  status: 415,
  code: "CONTENT_TYPE_UNSUPPORTED",
  detail: "compressed bodies are not taken; send the body without Content-Encoding",
};

const OVERLOADED: Problem = {
  status: 503,
  code: "GATEWAY_OVERLOADED",
  detail: "too much is in flight; nothing was stored, send the request again",
  retryAfterSeconds: OVERLOAD_RETRY_SECONDS,
};

/** The bytes a body will take at most: what its header says, or the limit when it comes in chunks of untold length. */
function announcedBytes(request: FastifyRequest, bodyBytesMax: number): number {
  const announced = request.headers["content-length"];
  return announced === undefined ? bodyBytesMax : Math.min(Number(announced), bodyBytesMax);
}

function appendProblem(code: "LOG_UNAVAILABLE" | "LOG_FULL"): Problem {
  const what = code === "LOG_FULL" ? "the event log is full" : "the event log did not acknowledge in time";
  return {
    status: 503,
    code,
    detail: `${what}; whether the events were stored is unknown. Send them again with the same ids: a copy counts once`,
    retryAfterSeconds: code === "LOG_FULL" ? LOG_FULL_RETRY_SECONDS : LOG_RETRY_SECONDS,
  };
}

/** 202: every event reported as accepted is durable in the log. One result per event, in the order of the request. */
function answer(reply: FastifyReply, acceptances: readonly Acceptance[]): FastifyReply {
  return reply
    .code(202)
    .type("application/json")
    .send(JSON.stringify(resultsOf(acceptances)));
}

/** Nothing was stored, so nothing was accepted: not a 202. */
function allRejected(acceptances: readonly Acceptance[]): Problem {
  const what = acceptances.length === 1 ? "the event is rejected" : `all ${acceptances.length} events are rejected`;
  return {
    status: 400,
    code: "EVENTS_REJECTED",
    detail: `${what}; results says why`,
    members: resultsOf(acceptances),
  };
}

function resultsOf(acceptances: readonly Acceptance[]): {
  readonly results: readonly object[];
  readonly accepted: number;
  readonly rejected: number;
} {
  const accepted = acceptances.filter(({ kind }) => kind === "accepted").length;
  return { results: acceptances.map(resultOf), accepted, rejected: acceptances.length - accepted };
}

function resultOf(acceptance: Acceptance, index: number): object {
  if (acceptance.kind === "accepted") return { id: acceptance.id, status: "accepted" };
  const { id, rejection } = acceptance;
  const { code, pointer, rule } = rejection;
  return { ...(id === null ? {} : { id }), index, status: "rejected", code, pointer, message: rule };
}
