/** Service tokens: the operator's secret for one mode and all customers. */
import type { Mode } from "./usage-event.ts";

const SERVICE_TOKEN = /^svc_(live|test)_th_[0-9A-Za-z_-]{16,128}$/;

/** Who a request comes from. */
export interface Principal {
  readonly mode: Mode;
}

/** Tells who a presented credential belongs to. */
export interface Authenticator {
  /**
   * @returns null for an unknown, malformed or revoked credential: one answer for all three.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry) when it cannot be looked up.
   */
  verify(token: string): Promise<Principal | null>;
}

/** The mode a well-formed service token names, null for anything else. Says nothing about whether it is known. */
export function modeOfServiceToken(token: string): Mode | null {
  const match = SERVICE_TOKEN.exec(token);
  return match === null ? null : (match[1] as Mode);
}
