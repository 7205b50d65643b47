import { Stripe } from "stripe";
import { type ApiDescription, loadApiDescription, type Schema } from "./api-description.ts";
import { startStripeEmulator, type StripeEmulator, type StripeEmulatorOptions } from "./index.ts";

/** A clock that only the test moves. Starts at 2026-11-10T12:34:56Z. */
function manualClock(startMs = Date.UTC(2026, 10, 10, 12, 34, 56)) {
  let nowMs = startMs;
  return {
    now: () => nowMs,
    advance(ms: number): void {
      nowMs += ms;
    },
  };
}

/** An emulator on a manual clock with official clients of both modes; every answer is held to the API description. */
export interface Harness {
  readonly emulator: StripeEmulator;
  readonly clock: ReturnType<typeof manualClock>;
  readonly stripe: Stripe;
  readonly live: Stripe;
  /** A raw request with a test key; `body` as form text. */
  readonly request: (method: string, path: string, init?: RawRequest) => Promise<RawAnswer>;
  close(): Promise<void>;
}

interface RawRequest {
  readonly body?: string;
  readonly headers?: Record<string, string>;
}

interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: { readonly error: Record<string, string> } & Record<string, unknown>;
}

/** Starts one with limits off and a fixed seed, unless told otherwise. */
export async function startHarness(options: StripeEmulatorOptions = {}): Promise<Harness> {
  const clock = manualClock();
  const emulator = await startStripeEmulator({ clock, limits: "off", seed: "test", ...options });
  return {
    emulator,
    clock,
    stripe: officialClient(emulator, "sk_test_harness"),
    live: officialClient(emulator, "sk_live_harness"),
    async request(method, path, { body, headers = {} } = {}) {
      const all = new Headers({ Authorization: "Bearer sk_test_harness" });
      if (body !== undefined) all.set("Content-Type", "application/x-www-form-urlencoded");
      for (const [name, value] of Object.entries(headers)) all.set(name, value);
      const request = new Request(emulator.url + path, {
        method,
        headers: all,
        ...(body === undefined ? {} : { body }),
      });
      const response = await fetch(request);
      return { status: response.status, headers: response.headers, body: (await response.json()) as RawAnswer["body"] };
    },
    close: () => emulator.close(),
  };
}

const description = loadApiDescription();

/** The official client. It fails on an answer that the API description does not allow. */
export function officialClient(emulator: Pick<StripeEmulator, "stripeConfig">, key: string): Stripe {
  const checkedFetch: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    const url = new URL(input instanceof Request ? input.url : input);
    const match = description.match(init?.method ?? "GET", url.pathname);
    const schema = response.ok ? match?.operation.answer : { $ref: "#/components/schemas/error" };
    const problems = schemaProblems({ description, schema: schema ?? {} }, await response.clone().json(), "answer");
    if (problems.length > 0) throw new Error(`${url.pathname} answers against its schema: ${problems.join("; ")}`);
    return response;
  };
  const httpClient = Stripe.createFetchHttpClient(checkedFetch);
  return new Stripe(key, { ...emulator.stripeConfig, telemetry: false, maxNetworkRetries: 0, httpClient });
}

interface Expected {
  readonly description: ApiDescription;
  readonly schema: Schema & { readonly "x-openEnum"?: boolean };
}

/** Where a value differs from its schema; fields that the schema does not name count as differences. */
function schemaProblems({ description, schema: raw }: Expected, value: unknown, path: string): string[] {
  const schema: Expected["schema"] = description.resolve(raw);
  if (value === null) return schema.nullable === true || raw.nullable === true ? [] : [`${path} is null`];
  if (schema.anyOf !== undefined) {
    const attempts = schema.anyOf.map((branch) => schemaProblems({ description, schema: branch }, value, path));
    return attempts.some((problems) => problems.length === 0) ? [] : (attempts[0] ?? []);
  }
  if (schema.enum !== undefined && schema["x-openEnum"] !== true && !schema.enum.includes(value)) {
    return [`${path} is ${JSON.stringify(value)}`];
  }
  switch (schema.type) {
    case "object":
      return objectProblems({ description, schema }, value, path);
    case "array":
      if (!Array.isArray(value)) return [`${path} is no array`];
      return value.flatMap((item: unknown, at) =>
        schemaProblems({ description, schema: schema.items ?? {} }, item, `${path}[${at}]`),
      );
    case "integer":
      return Number.isInteger(value) ? [] : [`${path} is no integer`];
    case undefined:
      return [];
    default:
      return typeof value === schema.type ? [] : [`${path} is no ${schema.type}`];
  }
}

function objectProblems({ description, schema }: Expected, value: unknown, path: string): string[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [`${path} is no object`];
  const missing = (schema.required ?? [])
    .filter((name) => !Object.hasOwn(value, name))
    .map((name) => `${path}.${name} is missing`);
  const { properties = {}, additionalProperties } = schema;
  const others = Object.entries(value).flatMap(([name, child]) => {
    const childSchema =
      properties[name] ?? (typeof additionalProperties === "object" ? additionalProperties : undefined);
    if (childSchema !== undefined)
      return schemaProblems({ description, schema: childSchema }, child, `${path}.${name}`);
    return additionalProperties === true ? [] : [`${path}.${name} is not documented`];
  });
  return [...missing, ...others];
}

/** The error a promise rejects with. */
export async function stripeError(promise: Promise<unknown>): Promise<Stripe.errors.StripeError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Stripe.errors.StripeError) return error;
    throw error;
  }
  throw new Error("expected a Stripe error, got an answer");
}
