/** `POST /v1/events`: the way into the log. */
import type { IncomingMessage } from "node:http";
import { type Authenticator, type EventLog, type LogRecord, unreachable } from "@tallyhouse/domain";
import type { Clock, Logger } from "@tallyhouse/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { acceptEvents, type Acceptance } from "./accept.ts";
import { addAdmission, type Admission } from "./admission.ts";
import { type AppendOutcome, appendWithin } from "./append.ts";
import type { AuthFailures } from "./auth-failures.ts";
import { isBinaryMode, readBinaryEvent } from "./binary-mode.ts";
import {
  type BodyReader,
  type BodyReading,
  createBodyReader,
  createWholeReader,
  MEDIA_TYPES,
  type MediaType,
  readJson,
} from "./body.ts";
import type { Budget, Share } from "./budget.ts";
import type { GatewayConfig } from "./config.ts";
import { applyIdempotencyKey } from "./idempotency-key.ts";
import type { GatewayMetrics } from "./metrics.ts";
import { type Problem, sendProblem } from "./problem.ts";
import { receiveBody } from "./receive-body.ts";

interface EventsPorts {
  readonly log: EventLog;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
}

const LOG_RETRY_SECONDS = 2;
/** A full disk is not emptied in seconds. */
const LOG_FULL_RETRY_SECONDS = 30;

/** Adds the route with body parsers and hooks of its own: give it a scope to itself. */
export function addEventsRoute(
  scope: FastifyInstance,
  input: {
    config: GatewayConfig;
    ports: EventsPorts;
    failures: AuthFailures;
    budget: Budget;
    metrics: GatewayMetrics;
  },
): void {
  const { config, ports, metrics } = input;
  const admissionOf = addAdmission(scope, { ...input, authenticator: ports.authenticator });
  addBodyParsers(scope, { config, admissionOf });
  scope.post("/v1/events", async (request, reply) => {
    const { principal, share } = admissionOf(request);
    const body = applyIdempotencyKey(bodyOf(request), request.headers["idempotency-key"]);
    if (body.kind === "problem") {
      // What was not received would be read as the connection's next request.
      if (!request.raw.complete) void reply.header("connection", "close");
      return sendProblem(reply, body.problem);
    }
    const context = {
      mode: principal.mode,
      cloudEventsOnly: body.isCloudEventsOnly,
      receivedAt: ports.clock.now(),
      partitionCount: ports.log.partitionCount,
    };
    const acceptances = acceptEvents(body.events, context);
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

/** Gives every media type its reader. A body is read while it arrives; what comes out is a {@link BodyReading}, never an error. */
function addBodyParsers(
  scope: FastifyInstance,
  input: { config: GatewayConfig; admissionOf: (request: FastifyRequest) => Admission },
): void {
  const { config, admissionOf } = input;
  scope.removeAllContentTypeParsers();
  for (const mediaType of Object.keys(MEDIA_TYPES) as MediaType[]) {
    scope.addContentTypeParser(mediaType, async (request: FastifyRequest, payload: IncomingMessage) => {
      const { share, coding, announcedBytes } = admissionOf(request);
      return receiveBody(payload, {
        coding,
        announcedBytes,
        bodyBytesMax: config.BODY_BYTES_MAX,
        inflatedBytesMax: config.INFLATED_BYTES_MAX,
        reader: readerOf(request, mediaType, config.EVENTS_PER_REQUEST_MAX),
        onInflated: (bytes) => share.shrinkTo(bytes),
      });
    });
  }
}

/** In structured mode and in lists, `ce-` headers say nothing: the body has the attributes. */
function readerOf(request: FastifyRequest, mediaType: MediaType, eventsMax: number): BodyReader {
  if (mediaType !== "application/json" || !isBinaryMode(request.headers)) return createBodyReader(mediaType, eventsMax);
  return createWholeReader((bytes) => {
    if (bytes.length === 0) return binaryEventOf(request, undefined);
    const reading = readJson(bytes);
    return reading.kind === "problem" ? reading : binaryEventOf(request, reading.value);
  });
}

function binaryEventOf(request: FastifyRequest, data: unknown): BodyReading {
  const { rawHeaders, headers } = request.raw;
  const event = readBinaryEvent({ rawHeaders, contentType: headers["content-type"], data });
  return { kind: "events", events: [event], isCloudEventsOnly: true };
}

/** A request without a body has no media type either, so no parser has seen it. */
function bodyOf(request: FastifyRequest): BodyReading {
  if (request.body !== undefined) return request.body as BodyReading;
  return isBinaryMode(request.headers) ? binaryEventOf(request, undefined) : EMPTY_BODY;
}

const EMPTY_BODY: BodyReading = {
  kind: "problem",
  problem: { status: 400, code: "BODY_INVALID", detail: "the body is empty; send one event or a list of events" },
};

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
