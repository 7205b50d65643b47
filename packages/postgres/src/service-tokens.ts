import { createHash, createHmac, hash } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  type Authenticator,
  type ControlStore,
  type Mode,
  modeOfServiceToken,
  type Principal,
  TallyhouseError,
} from "@tallyhouse/domain";
import { type Clock, systemClock } from "@tallyhouse/runtime";

/** Tokens remembered. An operator has a handful per mode; the rest is room for a mistake. */
export const TOKEN_CACHE_MAX = 1_000;
/** A revoked token is refused after at most this long. */
export const TOKEN_CACHE_MS = 2_000;

/** The service tokens of the control store. */
export interface ServiceTokenDirectory extends Authenticator {
  /**
   * Makes the token valid. Safe to repeat: yes; a revoked token stays revoked.
   * @throws {TallyhouseError} CONFIG_INVALID (halt) when it is not `svc_live_th_…` or `svc_test_th_…`, nothing was
   * stored; STORE_UNAVAILABLE (retry).
   */
  add(token: string): Promise<void>;
}

/**
 * Looks up service tokens by HMAC-SHA-256(pepper, SHA-256(token)): the store never sees a token, and a stolen store is
 * of no use without the pepper. A known token is remembered for {@link TOKEN_CACHE_MS}, an unknown one never, so that
 * guessing cannot push the known ones out.
 */
export function createServiceTokenDirectory(
  store: ControlStore,
  pepper: Buffer,
  clock: Clock = systemClock,
): ServiceTokenDirectory {
  const cache = new Map<string, { readonly expiresAt: number; readonly answer: Promise<Principal | null> }>();
  const hashOf = (token: string): Buffer =>
    createHmac("sha256", pepper).update(createHash("sha256").update(token).digest()).digest();

  /** Remembered before it is answered, so that all who ask meanwhile share one look-up. */
  const lookUpOnce = (key: string, tokenHash: Buffer, mode: Mode): Promise<Principal | null> => {
    const forget = (): void => {
      if (cache.get(key) === entry) cache.delete(key);
    };
    const answer = lookUp(store, tokenHash, mode).then(
      (principal) => {
        if (principal === null) forget();
        return principal;
      },
      (error: unknown) => {
        forget();
        throw error;
      },
    );
    const entry = { expiresAt: clock.now() + TOKEN_CACHE_MS, answer };
    // Deleted first: a Map keeps a key's old place, and the oldest place is the one that leaves.
    cache.delete(key);
    cache.set(key, entry);
    if (cache.size > TOKEN_CACHE_MAX) cache.delete(cache.keys().next().value ?? key);
    return answer;
  };

  return {
    async verify(token) {
      const mode = modeOfServiceToken(token);
      if (mode === null) return null;
      // Without the pepper: what is remembered here never leaves the process, and each request of a known token asks.
      const key = hash("sha256", token, "base64");
      const known = cache.get(key);
      if (known !== undefined && known.expiresAt > clock.now()) return known.answer;
      return lookUpOnce(key, hashOf(token), mode);
    },
    async add(token) {
      const mode = modeOfServiceToken(token);
      if (mode === null) {
        throw new TallyhouseError({
          code: "CONFIG_INVALID",
          action: "halt",
          message: "a service token is svc_live_th_ or svc_test_th_ and 16 to 128 characters of 0-9 A-Z a-z _ -",
        });
      }
      await store.query(
        "INSERT INTO service_token (token_hash, mode, created_at) VALUES ($1, $2, $3) ON CONFLICT (token_hash) DO NOTHING",
        [hashOf(token), mode, new Date(clock.now())],
      );
    },
  };
}

/** The row's mode and the token's prefix must agree: a row whose mode was changed by hand opens nothing. */
async function lookUp(store: ControlStore, tokenHash: Buffer, mode: Mode): Promise<Principal | null> {
  const rows = await store.query<{ mode: Mode }>(
    "SELECT mode FROM service_token WHERE token_hash = $1 AND mode = $2 AND revoked_at IS NULL",
    [tokenHash, mode],
  );
  return rows.length === 1 ? { mode } : null;
}

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** 62^43 > 2^256 > 62^42. */
const SECRET_LENGTH = 43;
const SECRET_BYTES = 32;
/** 62^6 > 2^32 > 62^5. */
const CHECKSUM_LENGTH = 6;

/**
 * A new service token: prefix, 256 random bits in base62, and the CRC-32 of all before it, so that a secret scanner
 * can tell a token from look-alikes without asking anybody.
 */
export function generateServiceToken(mode: Mode, randomBytes: (byteCount: number) => Buffer): string {
  const secret = BigInt(`0x${randomBytes(SECRET_BYTES).toString("hex")}`);
  const body = `svc_${mode}_th_${base62(secret, SECRET_LENGTH)}`;
  return body + base62(BigInt(crc32(body)), CHECKSUM_LENGTH);
}

function base62(value: bigint, length: number): string {
  let text = "";
  for (let rest = value; rest > 0n; rest /= 62n) text = (BASE62[Number(rest % 62n)] ?? "") + text;
  return text.padStart(length, "0");
}
