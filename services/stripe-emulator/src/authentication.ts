import { type Answer, refusal } from "./answer.ts";
import type { Mode } from "./state.ts";

export type Authentication =
  | { readonly kind: "key"; readonly mode: Mode }
  | { readonly kind: "refused"; readonly answer: Answer };

const KEY = /^(?:sk|rk)_(test|live)_[A-Za-z0-9_]{1,200}$/;

/**
 * Reads the key of `Authorization: Bearer …`, or the user name of `Basic …`. Any well-formed secret or restricted key
 * is good, with all permissions; its prefix selects the mode.
 */
export function authenticate(header: string | undefined): Authentication {
  const key = readKey(header ?? "");
  if (key === "") {
    return refused(
      "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth " +
        "(e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, " +
        "or we can help at https://support.stripe.com/.",
    );
  }
  const mode = KEY.exec(key)?.[1];
  if (mode === "test" || mode === "live") return { kind: "key", mode };
  return refused(`Invalid API Key provided: ${masked(key)}`);
}

function readKey(header: string): string {
  const [scheme = "", credentials = ""] = header.split(" ", 2);
  if (scheme.toLowerCase() === "bearer") return credentials;
  if (scheme.toLowerCase() !== "basic") return "";
  return Buffer.from(credentials, "base64").toString("latin1").split(":", 1)[0] ?? "";
}

/** The kind of key and at most four last characters: enough to recognise it, too little to use it. */
function masked(key: string): string {
  const prefix = /^(?:sk|rk|pk)_(?:test|live)_/.exec(key)?.[0] ?? "";
  const rest = key.length - prefix.length;
  const shown = rest > 8 ? key.slice(-4) : "";
  return prefix + "*".repeat(Math.min(rest - shown.length, 40)) + shown;
}

function refused(message: string): Authentication {
  const answer = refusal(
    401,
    { type: "invalid_request_error", message },
    { "WWW-Authenticate": 'Basic realm="Stripe"' },
  );
  return { kind: "refused", answer };
}
