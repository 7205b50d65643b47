import { hash } from "node:crypto";
import { type Answer, badRequest, refusal, unsupported } from "./answer.ts";
import type { ApiDescription, Match } from "./api-description.ts";
import { authenticate } from "./authentication.ts";
import type { Clock } from "./clock.ts";
import { type Engine, handlers } from "./engine.ts";
import { checkExpand } from "./expand.ts";
import { canonicalText, emptyGroup, FormError, type FormGroup, type FormNode, parseForm } from "./form.ts";
import type { Handler, ReadSettings } from "./handler.ts";
import { InFlight, type RateLimits, type RequestCounts } from "./limits.ts";
import { countedAnswer, pairOf } from "./meter-events.ts";
import { checkParameters, type Parameters } from "./parameters.ts";
import type { Mode } from "./state.ts";

/** One HTTP request to the API, read whole. */
interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly contentType: string;
  readonly body: string;
  readonly authorization: string | undefined;
  readonly idempotencyKey: string | undefined;
}

export interface ApiOptions {
  readonly description: ApiDescription;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly settings: ReadSettings;
  readonly rateLimits: RateLimits;
  /** Refuse a second call in flight for one event name and customer. */
  readonly isPairExclusive: boolean;
  readonly counts: RequestCounts;
}

/** Longer keys are refused. @see https://docs.stripe.com/api/idempotent_requests (read 2026-07) */
const KEY_LENGTH_MAX = 255;
/** 132 bits. */
const FINGERPRINT_LENGTH = 22;

/** Answers API requests. An answer is given only when everything it tells is durable. */
export interface Api {
  answer(request: ApiRequest): Promise<Answer>;
}

interface Work {
  readonly request: ApiRequest;
  readonly match: Match;
  readonly handler: Handler;
  readonly mode: Mode;
  readonly form: FormGroup;
  readonly at: number;
}

/** Wires the checks of 1.8 in their order: route, key, rate, support, encoding, idempotency, parameters, then execution. */
export function buildApi(options: ApiOptions): Api {
  const { description, engine, clock, rateLimits, counts } = options;
  const keysInFlight = new InFlight();
  const pairsInFlight = new InFlight();
  const parts: Parts = { options, keysInFlight, pairsInFlight };
  return {
    async answer(request) {
      const match = description.match(request.method, request.path);
      if (match === undefined) return unrecognized(request);
      const authentication = authenticate(request.authorization);
      if (authentication.kind === "refused") return authentication.answer;
      const { mode } = authentication;
      counts.countOperation(match.operation.key);
      const reason = rateLimits.refuse(mode, match.operation.key);
      if (reason !== undefined) return rateLimited(reason);
      const handler = handlers[match.operation.key];
      if (handler === undefined) return unsupported(`the operation ${match.operation.key}`, match.operation.version);
      const form = readForm(request);
      if ("status" in form) return form;
      const work: Work = { request, match, handler, mode, form: form.group, at: clock.now() };
      if (handler.effect === "write") return await write(parts, work);
      const answer = read(parts, work);
      // Nothing is shown that a crash could still take back.
      await engine.durable();
      return answer;
    },
  };
}

interface Parts {
  readonly options: ApiOptions;
  /** Bounded, like the pairs, by the requests in flight. */
  readonly keysInFlight: InFlight;
  readonly pairsInFlight: InFlight;
}

function read({ options }: Parts, work: Work): Answer {
  const checked = check(options.description, work);
  if ("status" in checked) return checked;
  const { state } = options.engine;
  const { parameters } = checked;
  const data = state.modes[work.mode];
  return work.handler.run({ state, data, at: work.at, id: work.match.id, parameters }, options.settings);
}

async function write(parts: Parts, work: Work): Promise<Answer> {
  // Only POSTs take keys: the other methods are idempotent by definition.
  const key = work.request.method === "POST" ? (work.request.idempotencyKey ?? "") : "";
  if (key === "") return await execute(parts, work, undefined);
  if (key.length > KEY_LENGTH_MAX) {
    const message = `Idempotency keys can be at most ${KEY_LENGTH_MAX} characters long (yours has ${key.length}).`;
    return refusal(400, { type: "idempotency_error", message });
  }
  const name = `${work.mode} ${key}`;
  if (parts.keysInFlight.has(name)) {
    const message = `Another request with the idempotency key '${key}' is in progress. Please try again later.`;
    return refusal(409, { type: "idempotency_error", code: "idempotency_key_in_use", message });
  }
  const request = `${work.request.method} ${work.request.path} ${canonicalText(work.form)}`;
  const fingerprint = hash("sha256", request, "base64url").slice(0, FINGERPRINT_LENGTH);
  const identity = { key, fingerprint };
  parts.keysInFlight.enter(name);
  try {
    return replay(parts, work, identity) ?? (await execute(parts, work, identity));
  } finally {
    parts.keysInFlight.leave(name);
  }
}

interface Identity {
  readonly key: string;
  /** Digest of method, path and parameters. */
  readonly fingerprint: string;
}

/** The first result of this key, if it has one that is still replayed. */
function replay({ options }: Parts, work: Work, identity: Identity): Answer | undefined {
  const data = options.engine.state.modes[work.mode];
  const stored = data.idempotency.find(identity.key, work.at);
  if (stored === undefined) return undefined;
  if (stored.fingerprint !== identity.fingerprint) {
    const message =
      "Keys for idempotent requests can only be used with the same parameters they were first used with. " +
      `Try using a key other than '${identity.key}' if you meant to execute a different request.`;
    return refusal(400, { type: "idempotency_error", message });
  }
  const answer = typeof stored.result === "number" ? rebuilt(options, work, stored.result) : stored.result;
  return { ...answer, headers: { "Idempotent-Replayed": "true" } };
}

function rebuilt({ description, engine }: ApiOptions, work: Work, position: number): Answer {
  const checked = check(description, work);
  if ("status" in checked) return checked; // cannot be: equal parameters passed the same check the first time
  return countedAnswer(engine.state.modes[work.mode], position, checked.parameters);
}

async function execute(parts: Parts, work: Work, identity: Identity | undefined): Promise<Answer> {
  const { options, pairsInFlight } = parts;
  const { engine, counts, description } = options;
  const checked = check(description, work);
  if ("status" in checked) return checked;
  const { parameters } = checked;
  const operation = work.match.operation.key;
  const command = { kind: "request", at: work.at, mode: work.mode, operation, id: work.match.id, parameters } as const;
  const run = async (): Promise<Answer> => {
    const { status, body } = engine.execute(identity === undefined ? command : { ...command, idempotency: identity });
    await engine.durable();
    return { status, body };
  };
  if (operation !== "POST /v1/billing/meter_events") return await run();
  const pair = `${work.mode} ${pairOf(engine.state.modes[work.mode], parameters)}`;
  const concurrency = pairsInFlight.enter(pair);
  counts.countPair(pair, concurrency);
  try {
    return concurrency > 1 && options.isPairExclusive ? pairBusy() : await run();
  } finally {
    pairsInFlight.leave(pair);
  }
}

/** Holds the request to the documented parameters, the supported ones and what can be expanded. */
function check(description: ApiDescription, { match, form, handler }: Work): { parameters: Parameters } | Answer {
  const { operation } = match;
  const checked = checkParameters(operation.parameters, form);
  if (checked.kind === "invalid") return refusal(400, checked.error);
  const { parameters } = checked;
  const extra =
    Object.keys(parameters).find((name) => name !== "expand" && !handler.supported.includes(name)) ??
    handler.unsupported?.find((name) => isGiven(form, name));
  if (extra !== undefined) return unsupported(`the parameter ${extra}`);
  return checkExpand(description, operation.answer, (parameters["expand"] ?? []) as string[]) ?? { parameters };
}

function isGiven(form: FormGroup, name: string): boolean {
  let node: FormNode | undefined = form;
  for (const key of name.replaceAll("]", "").split("[")) node = typeof node === "object" ? node[key] : undefined;
  return node !== undefined;
}

function readForm(request: ApiRequest): { group: FormGroup } | Answer {
  if (request.body !== "" && !request.contentType.startsWith("application/x-www-form-urlencoded")) {
    return badRequest(
      "Invalid request (check that your POST content type is application/x-www-form-urlencoded). " +
        "If you have any questions, we can help at https://support.stripe.com/.",
    );
  }
  const group = emptyGroup();
  try {
    parseForm(request.query, group);
    parseForm(request.body, group);
    return { group };
  } catch (error) {
    if (error instanceof FormError) return badRequest(error.message);
    throw error;
  }
}

function unrecognized({ method, path }: ApiRequest): Answer {
  const message =
    `Unrecognized request URL (${method}: ${path}). If you are trying to list objects, remove the trailing slash. ` +
    "If you are trying to retrieve an object, make sure you passed a valid (non-empty) identifier in your code. " +
    "Please see https://stripe.com/docs or we can help at https://support.stripe.com/.";
  return refusal(404, { type: "invalid_request_error", message });
}

/** 429 by a limiter: carries the reason, unlike one by a lock timeout. */
export function rateLimited(reason: string): Answer {
  const message = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.";
  const headers = { "Stripe-Rate-Limited-Reason": reason };
  return refusal(429, { type: "invalid_request_error", code: "rate_limit", message }, headers);
}

function pairBusy(): Answer {
  const message = "Another meter event for this customer and meter is being processed. Please try again.";
  return refusal(409, { type: "invalid_request_error", code: "lock_timeout", message });
}
