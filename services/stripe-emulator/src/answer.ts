/** What one request is answered with, before headers that every answer carries. */
export interface Answer {
  readonly status: number;
  /** Sent as JSON. */
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The `error` object of a v1 answer. `code` and `param` are left out where Stripe sends none. */
export interface ApiError {
  readonly type: "api_error" | "idempotency_error" | "invalid_request_error";
  readonly code?: string;
  readonly message: string;
  readonly param?: string;
}

/** An error answer in the v1 shape. */
export function refusal(status: number, error: ApiError, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, body: { error }, headers };
}

/** A 400 `invalid_request_error`; `rest` adds `code` and `param`. */
export function badRequest(message: string, rest: { readonly code?: string; readonly param?: string } = {}): Answer {
  return refusal(400, { type: "invalid_request_error", message, ...rest });
}

/** The object named in the path does not exist: 404. In a parameter it is a 400: {@link missingReference}. */
export function missingObject(noun: string, id: string): Answer {
  return refusal(404, { type: "invalid_request_error", ...missing(noun, id), param: "id" });
}

/** The object that parameter `param` names does not exist: 400. */
export function missingReference(reference: {
  readonly noun: string;
  readonly id: string;
  readonly param: string;
}): Answer {
  const { noun, id, param } = reference;
  return refusal(400, { type: "invalid_request_error", ...missing(noun, id), param });
}

function missing(noun: string, id: string): { code: string; message: string } {
  return { code: "resource_missing", message: `No such ${noun}: '${id}'` };
}

/** Something Stripe documents and this emulator does not do: 501, never a guess. Clients are told not to retry. */
export function unsupported(what: string, version: "v1" | "v2" = "v1"): Answer {
  const message = `The emulator does not support ${what}.`;
  const code = "emulator_unsupported";
  const error = version === "v2" ? { code, message } : { type: "invalid_request_error", code, message };
  return { status: 501, body: { error }, headers: { "Stripe-Should-Retry": "false" } };
}
