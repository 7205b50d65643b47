/** Guessing credentials is made slow: a network that fails too often is not listened to for a while. */
import { hash } from "node:crypto";
import type { Clock } from "@tallyhouse/runtime";
import { networkOf } from "./client-address.ts";

/** Failed authentications of one network within the span (edge.md §1). */
export const FAILURES_MAX = 20;
export const FAILURE_SPAN_MS = 60_000;
/** Networks remembered, some 100 bytes each: 2 MB. Beyond, the one whose span began first is forgotten. */
const NETWORKS_MAX = 20_000;
/** Credentials remembered as good, as SHA-256: some 100 bytes each. */
const GOOD_MAX = 10_000;

export interface AuthFailures {
  /** Seconds until this network is listened to again; null when the credential may be looked at. */
  retryAfterSeconds(address: string, token: string): number | null;
  /** What became of it. Requests that were let in together are counted when they have failed, so a burst may exceed the limit. */
  record(outcome: { address: string; token: string; isGood: boolean }): void;
}

/**
 * Counts failures by network. Credentials that were good before pass in any case: behind one address that is shared, a neighbour's
 * wrong key must not stop the rest.
 */
export function createAuthFailures(clock: Clock): AuthFailures {
  const failures = new Map<string, { readonly startedAt: number; count: number }>();
  const good = new Set<string>();
  const digestOf = (token: string): string => hash("sha256", token, "base64");
  return {
    retryAfterSeconds(address, token) {
      if (failures.size === 0) return null;
      const span = failures.get(networkOf(address));
      if (span === undefined || span.count < FAILURES_MAX) return null;
      const leftMs = span.startedAt + FAILURE_SPAN_MS - clock.now();
      if (leftMs <= 0 || good.has(digestOf(token))) return null;
      return Math.ceil(leftMs / 1_000);
    },
    record({ address, token, isGood }) {
      const digest = digestOf(token);
      good.delete(digest);
      if (isGood) {
        good.add(digest);
        dropOldest(good, GOOD_MAX);
        return;
      }
      const network = networkOf(address);
      const span = failures.get(network);
      if (span !== undefined && clock.now() < span.startedAt + FAILURE_SPAN_MS) {
        span.count += 1;
        return;
      }
      failures.delete(network); // To the end: the order of the map is the order in which spans began.
      failures.set(network, { startedAt: clock.now(), count: 1 });
      dropOldest(failures, NETWORKS_MAX);
    },
  };
}

function dropOldest(entries: Map<string, unknown> | Set<string>, entriesMax: number): void {
  for (const oldest of entries.keys()) {
    if (entries.size <= entriesMax) return;
    entries.delete(oldest);
  }
}
