import { describe, expect, test } from "vitest";
import { createAuthFailures, FAILURE_SPAN_MS, FAILURES_MAX } from "./auth-failures.ts";
import { networkOf } from "./client-address.ts";
import { LIVE, NATIVE, NOW, post, problemOf, startGateway, TEST } from "./test-gateway.ts";

const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

describe("failed authentications", () => {
  test("twenty in a minute from one network, then 429 with the time left; good credentials known before pass", async () => {
    let now = NOW;
    const asked: string[] = [];
    const { app, log } = await startGateway(
      {},
      {
        clock: { now: () => now },
        authenticator: {
          verify: async (token) => {
            asked.push(token);
            return token === LIVE || token === TEST ? { mode: "live" } : null;
          },
        },
      },
    );
    expect((await post(app, NATIVE)).statusCode).toBe(202);
    for (let n = 0; n < FAILURES_MAX; n += 1) {
      now += 100;
      expect(problemOf(await post(app, NATIVE, bearer(`wrong-${n}`)))).toBe("401 AUTH_INVALID");
    }
    const refused = await post(app, NATIVE, bearer("wrong-again"));
    expect(problemOf(refused)).toBe("429 AUTH_FAILURES_LIMITED");
    // The span began with the first failure, 1.9 s ago.
    expect(refused.headers["retry-after"]).toBe("59");
    expect(asked).not.toContain("wrong-again");
    // Not known before, so it cannot be told from a guess; the one known before passes.
    expect(problemOf(await post(app, NATIVE, bearer(TEST)))).toBe("429 AUTH_FAILURES_LIMITED");
    expect((await post(app, NATIVE)).statusCode).toBe(202);
    expect(problemOf(await post(app, NATIVE, { authorization: "" }))).toBe("401 AUTH_REQUIRED");
    now += FAILURE_SPAN_MS;
    expect((await post(app, NATIVE, bearer(TEST))).statusCode).toBe(202);
    expect(problemOf(await post(app, NATIVE, bearer("wrong-again")))).toBe("401 AUTH_INVALID");
    expect(log.records).toHaveLength(3);
  });

  test("behind a proxy of ours networks are told apart by what it wrote, and by nothing the caller wrote", async () => {
    const { app } = await startGateway({ PROXY_HOPS: 1 });
    const from = (forwarded: string) => post(app, NATIVE, { ...bearer("wrong"), "x-forwarded-for": forwarded });
    for (let n = 0; n < FAILURES_MAX; n += 1) await from(`198.51.100.${n}, 203.0.113.${n}`);
    expect(problemOf(await from("192.0.2.1, 203.0.113.99"))).toBe("429 AUTH_FAILURES_LIMITED");
    expect(problemOf(await from("203.0.113.1, 192.0.2.1"))).toBe("401 AUTH_INVALID");
  });

  test("a credential that was revoked is no longer known as good", () => {
    const failures = createAuthFailures({ now: () => NOW });
    const address = "192.0.2.1";
    failures.record({ address, token: "a", isGood: true });
    for (let n = 0; n < FAILURES_MAX; n += 1) failures.record({ address, token: `${n}`, isGood: false });
    expect(failures.retryAfterSeconds(address, "a")).toBeNull();
    failures.record({ address, token: "a", isGood: false });
    expect(failures.retryAfterSeconds(address, "a")).toBe(60);
  });

  test("memory is bounded: beyond 20,000 networks the oldest span is forgotten, the newest stand", () => {
    const failures = createAuthFailures({ now: () => NOW });
    const fail = (address: string): void => {
      for (let n = 0; n < FAILURES_MAX; n += 1) failures.record({ address, token: "x", isGood: false });
    };
    fail("1.1.1.1");
    const failOnce = (n: number): void =>
      failures.record({ address: `10.${n >> 8}.${n & 255}.1`, token: "x", isGood: false });
    for (let n = 1; n < 20_000; n += 1) failOnce(n);
    expect(failures.retryAfterSeconds("1.1.1.1", "x")).toBe(60);
    failOnce(20_000);
    expect(failures.retryAfterSeconds("1.1.1.1", "x")).toBeNull();
    fail("10.78.31.1");
    expect(failures.retryAfterSeconds("10.78.31.200", "x")).toBe(60);
  });
});

test.each([
  ["192.0.2.77", "192.0.2"],
  ["::ffff:192.0.2.77", "192.0.2"],
  ["2001:db8:1:2ff::1", "2001:db8:1:2"],
  ["2001:db8:1:2ab:1:2:3:4", "2001:db8:1:2"],
  ["2001:db8:1:3ff::1", "2001:db8:1:3"],
  ["2001:DB8::1", "2001:db8:0:0"],
  ["::1", "0:0:0:0"],
  ["fe80::1%eth0", "fe80:0:0:0"],
  ["", "unknown"],
  ["nonsense", "unknown"],
])("%s is of network %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});
