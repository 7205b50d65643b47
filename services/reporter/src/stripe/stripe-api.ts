import { MINUTE_MS } from "@tallyhouse/domain";
import { Stripe } from "stripe";
import type { Answer, AnswerKind } from "../outcome.ts";
import { type CallTrace, createTracingHttpClient, type TracingHttpClient } from "./http-client.ts";

/** Silence after which a network attempt is given up, and again the longest a started answer may take. */
const ATTEMPT_MS = 20_000;
/** Stripe's largest page. */
const PAGE_MAX = 100;
/** Pages of one listing: 100,000 objects. */
const PAGES_MAX = 1_000;
/** @see stripe.md 1.2: a duplicate has no code of its own; status, type and text together name it. */
const DUPLICATE = /already exists with identifier/i;

/** One meter event as sent. */
interface MeterEvent {
  readonly eventName: string;
  readonly stripeCustomerId: string;
  /** Plain decimal text. */
  readonly value: string;
  readonly identifier: string;
  readonly idempotencyKey: string;
  /** Epoch milliseconds of a whole minute. */
  readonly eventAt: number;
}

/** A Stripe meter as far as the reporter compares it. */
export interface StripeMeter {
  readonly id: string;
  readonly eventName: string;
  readonly isActive: boolean;
  readonly formula: string;
  readonly customerKey: string;
  readonly valueKey: string;
  readonly hasTimeWindow: boolean;
}

/** What any other call came to. Everything but `done` is an answer of {@link AnswerKind} with a text for operators. */
type CallResult<Value> =
  | { readonly kind: "done"; readonly value: Value }
  | { readonly kind: Exclude<AnswerKind, "accepted" | "duplicate">; readonly message: string };

/** The calls the reporter makes at one Stripe account. None of them throws for what the other side does. */
export interface StripeApi {
  /** Sends one meter event. Safe to repeat with the same key and identifier within 24 hours of the first attempt. */
  send(event: MeterEvent): Promise<Answer>;
  /** What Stripe counted for the pair in the minute from `minuteAt`: a JSON number's text. Lags behind `send`. */
  minuteTotal(input: {
    stripeMeterId: string;
    stripeCustomerId: string;
    minuteAt: number;
  }): Promise<CallResult<number>>;
  /** Every meter, active or not. */
  listMeters(): Promise<CallResult<StripeMeter[]>>;
  createMeter(input: {
    eventName: string;
    displayName: string;
    idempotencyKey: string;
  }): Promise<CallResult<StripeMeter>>;
  createCustomer(input: { customerId: string; idempotencyKey: string }): Promise<CallResult<string>>;
  /** Our customers created at or after the instant: customer id → Stripe customer id; of several the oldest. */
  listCustomersSince(sinceAt: number): Promise<CallResult<ReadonlyMap<string, string>>>;
  /** Closes idle connections. */
  close(): void;
}

/** The official client against Stripe, or against the emulator at `apiUrl`. */
export function createStripeApi(input: {
  secretKey: string;
  apiUrl?: string | undefined;
  connectionsMax: number;
  /** Default 20 s; see {@link ATTEMPT_MS}. */
  attemptMs?: number;
}): StripeApi {
  const { attemptMs = ATTEMPT_MS, connectionsMax } = input;
  const url = new URL(input.apiUrl ?? "https://api.stripe.com");
  const protocol = url.protocol === "http:" ? "http" : "https";
  const http = createTracingHttpClient({ protocol, connectionsMax, attemptMs });
  const stripe = new Stripe(input.secretKey, {
    host: url.hostname,
    port: url.port === "" ? (protocol === "http" ? 80 : 443) : Number(url.port),
    protocol,
    httpClient: http.client,
    // Our own table decides what is repeated, with which key.
    maxNetworkRetries: 0,
    timeout: attemptMs,
    telemetry: false,
  });
  return new StripeClient(stripe, http);
}

type Traced<Value> = CallResult<Value> & { readonly trace: CallTrace; readonly error?: unknown };

class StripeClient implements StripeApi {
  readonly #stripe: Stripe;
  readonly #http: TracingHttpClient;

  constructor(stripe: Stripe, http: TracingHttpClient) {
    this.#stripe = stripe;
    this.#http = http;
  }

  async send(event: MeterEvent): Promise<Answer> {
    const result = await this.#call(() =>
      this.#stripe.billing.meterEvents.create(
        {
          event_name: event.eventName,
          identifier: event.identifier,
          timestamp: event.eventAt / 1_000,
          payload: { stripe_customer_id: event.stripeCustomerId, value: event.value },
        },
        { idempotencyKey: event.idempotencyKey },
      ),
    );
    if (result.kind === "done") {
      const isOurs = result.value.object === "billing.meter_event" && result.value.identifier === event.identifier;
      if (!isOurs) return answer("lost", result.trace, new Error("another object came back"));
      return { ...answer("accepted", result.trace, undefined), requestId: result.value.lastResponse.requestId };
    }
    const error = result.error ?? new Error(result.message);
    return answer(isDuplicate(result) ? "duplicate" : result.kind, result.trace, error);
  }

  minuteTotal(input: {
    stripeMeterId: string;
    stripeCustomerId: string;
    minuteAt: number;
  }): Promise<CallResult<number>> {
    return this.#call(async () => {
      const page = await this.#stripe.billing.meters.listEventSummaries(input.stripeMeterId, {
        customer: input.stripeCustomerId,
        start_time: input.minuteAt / 1_000,
        end_time: (input.minuteAt + MINUTE_MS) / 1_000,
      });
      return page.data.reduce((sum, summary) => sum + summary.aggregated_value, 0);
    });
  }

  listMeters(): Promise<CallResult<StripeMeter[]>> {
    return this.#call(async () => {
      const found: StripeMeter[] = [];
      for (const status of ["active", "inactive"] as const) {
        const meters = await listAll((page) => this.#stripe.billing.meters.list({ status, ...page }));
        found.push(...meters.map(meterOf));
      }
      return found;
    });
  }

  createMeter(input: {
    eventName: string;
    displayName: string;
    idempotencyKey: string;
  }): Promise<CallResult<StripeMeter>> {
    return this.#call(async () => {
      const meter = await this.#stripe.billing.meters.create(
        { event_name: input.eventName, display_name: input.displayName, default_aggregation: { formula: "sum" } },
        { idempotencyKey: input.idempotencyKey },
      );
      return meterOf(meter);
    });
  }

  createCustomer(input: { customerId: string; idempotencyKey: string }): Promise<CallResult<string>> {
    return this.#call(async () => {
      const metadata = { tallyhouse_managed: "true", tallyhouse_customer: input.customerId };
      const customer = await this.#stripe.customers.create({ metadata }, { idempotencyKey: input.idempotencyKey });
      return customer.id;
    });
  }

  listCustomersSince(sinceAt: number): Promise<CallResult<ReadonlyMap<string, string>>> {
    return this.#call(async () => {
      const created = { gte: Math.floor(sinceAt / 1_000) };
      const customers = await listAll((page) => this.#stripe.customers.list({ created, ...page }));
      const ours = customers.filter((customer) => customer.metadata["tallyhouse_managed"] === "true");
      // Newest first: setting in this order leaves the oldest.
      return new Map(ours.map((customer) => [customer.metadata["tallyhouse_customer"] ?? "", customer.id]));
    });
  }

  close(): void {
    this.#http.close();
  }

  async #call<Value>(run: () => Promise<Value>): Promise<Traced<Value>> {
    const trace: CallTrace = { networkAttempts: 0, status: null };
    try {
      const value = await this.#http.traced(trace, run);
      // The SDK resolves whatever JSON has no `error`, whatever its status.
      const kind = kindOfStatus(trace.status);
      return kind === "done"
        ? { kind, value, trace }
        : { kind, message: `status ${trace.status} without an error`, trace };
    } catch (error) {
      if (!(error instanceof Stripe.errors.StripeError) && trace.networkAttempts === 0) throw error;
      const kind = kindOfStatus(trace.status);
      return { kind: kind === "done" ? "lost" : kind, message: messageOf(error), trace, error };
    }
  }
}

function kindOfStatus(status: number | null): Exclude<AnswerKind, "accepted" | "duplicate"> | "done" {
  if (status === null || status < 200 || status === 408) return "lost";
  if (status < 300) return "done";
  if (status < 400) return "lost";
  if (status === 401 || status === 403) return "unauthorised";
  if (status === 409 || status === 429) return "throttled";
  return status < 500 ? "refused" : "failed";
}

function isDuplicate(result: { kind: string; message: string; trace: CallTrace; error?: unknown }): boolean {
  const { error } = result;
  return (
    result.trace.status === 400 &&
    error instanceof Stripe.errors.StripeError &&
    error.rawType === "invalid_request_error" &&
    DUPLICATE.test(result.message)
  );
}

function answer(kind: AnswerKind, trace: CallTrace, error: unknown): Answer {
  const failure = error instanceof Stripe.errors.StripeError ? error : null;
  const reason = failure?.headers?.["stripe-rate-limited-reason"];
  return {
    // A refusal whose body cannot be read may be a duplicate: only its text tells them apart.
    kind: kind === "refused" && failure?.rawType === undefined ? "lost" : kind,
    networkAttempts: trace.networkAttempts,
    requestId: failure?.requestId ?? null,
    errorCode: error === undefined ? null : (failure?.code ?? failure?.rawType ?? `status_${trace.status ?? "none"}`),
    errorMessage: error === undefined ? null : messageOf(error),
    isLimiter: reason !== undefined && reason !== "resource-specific",
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function meterOf(meter: Stripe.Billing.Meter): StripeMeter {
  return {
    id: meter.id,
    eventName: meter.event_name,
    isActive: meter.status === "active",
    formula: meter.default_aggregation.formula,
    customerKey: meter.customer_mapping.event_payload_key,
    valueKey: meter.value_settings.event_payload_key,
    hasTimeWindow: meter.event_time_window !== null,
  };
}

async function listAll<Row extends { id: string }>(
  list: (page: { limit: number; starting_after?: string }) => Promise<{ data: Row[]; has_more: boolean }>,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (let pages = 0; pages < PAGES_MAX; pages += 1) {
    const last = rows.at(-1);
    const page = await list({ limit: PAGE_MAX, ...(last === undefined ? {} : { starting_after: last.id }) });
    rows.push(...page.data);
    if (!page.has_more) return rows;
  }
  throw new Error(`more than ${PAGES_MAX * PAGE_MAX} objects to list`);
}
