import { TallyhouseError } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import fc from "fast-check";
import type { FastifyInstance } from "fastify";
import { describe, expect, test } from "vitest";
import { createTestLog, NATIVE, post, problemOf, startGateway } from "./test-gateway.ts";

const unavailable = (code: "LOG_UNAVAILABLE" | "LOG_FULL" = "LOG_UNAVAILABLE"): TallyhouseError =>
  new TallyhouseError({ code, action: "retry", message: "the broker is away" });

/** What the log does with one append. `late` answers after the gateway has given up; `halved` stores a part and fails. */
type Fate = "stored" | "stored slowly" | "stored, answer lost" | "halved" | "failed" | "full" | "late" | "never";

describe("answers and the log", () => {
  test("G1 whatever is answered 202 stands in the log, under any failure, time-out and concurrency", async () => {
    const fate = fc.constantFrom<Fate>(
      "stored",
      "stored slowly",
      "stored, answer lost",
      "halved",
      "failed",
      "full",
      "late",
      "never",
    );
    const request = fc.array(fc.boolean(), { minLength: 1, maxLength: 4 });
    const plan = fc.record({
      fates: fc.array(fate, { minLength: 1, maxLength: 8 }),
      requests: fc.array(request, { minLength: 1, maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(plan, async ({ fates, requests }) => {
        const log = createTestLog(4);
        const late: (() => void)[] = [];
        let appends = 0;
        log.onAppend = async (records, keep) => {
          const next = fates[appends % fates.length];
          appends += 1;
          if (next === "stored slowly") await Promise.resolve().then(() => undefined);
          if (next === "late" || next === "never") await new Promise<void>((resolve) => late.push(resolve));
          if (next === "never" || next === "failed") throw unavailable();
          if (next === "full") throw unavailable("LOG_FULL");
          if (next === "halved") {
            log.records.push(...records.slice(0, Math.floor(records.length / 2)));
            throw unavailable();
          }
          keep();
          if (next === "stored, answer lost") throw unavailable();
        };
        const { app } = await startGateway({ APPEND_TIMEOUT_MS: 10, CLOSE_GRACE_MS: 11 }, { log });
        const acknowledged: string[] = [];
        await Promise.all(
          requests.map(async (validity, r) => {
            const events = validity.map((isValid, e) => ({
              ...NATIVE,
              id: `${r}-${e}`,
              time: isValid ? undefined : "x",
            }));
            const answer = await post(app, events);
            const { results = [] } = answer.json() as { results?: { id: string; status: string }[] };
            const accepted = results.filter(({ status }) => status === "accepted").map(({ id }) => id);
            // The very moment of the answer counts: what is stored later is of no use to a caller who was told 202.
            const stored = new Set(log.records.map(({ key }) => key?.toString().split("/")[3]));
            for (const id of accepted) expect(stored.has(id)).toBe(true);
            expect([202, 400, 503]).toContain(answer.statusCode);
            expect(accepted).toHaveLength(answer.statusCode === 202 ? validity.filter(Boolean).length : 0);
            acknowledged.push(...accepted);
          }),
        );
        for (const release of late) release();
        await app.close();
        const sent = new Set(requests.flatMap((validity, r) => validity.map((_, e) => `${r}-${e}`)));
        const stored = log.records.map(({ key }) => key?.toString().split("/")[3] ?? "");
        expect(stored.every((id) => sent.has(id))).toBe(true);
        expect(acknowledged.every((id) => stored.includes(id))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("a failed append answers 503, says that the outcome is unknown, and when to resend", async () => {
    const { app, log, metrics } = await startGateway();
    for (const [code, seconds] of [
      ["LOG_UNAVAILABLE", "2"],
      ["LOG_FULL", "30"],
    ] as const) {
      log.onAppend = () => Promise.reject(unavailable(code));
      const answer = await post(app, [NATIVE, { ...NATIVE, id: "" }]);
      expect(problemOf(answer)).toBe(`503 ${code}`);
      expect(answer.headers["retry-after"]).toBe(seconds);
      expect(answer.json().detail).toMatch(/unknown.*same ids/);
      expect(answer.body).not.toContain("accepted");
    }
    expect(await metrics.metrics()).toMatch(/gateway_events_total\{result="unanswered"\} 2/);
  });

  test("an append that takes too long is 503, and its bytes stay in flight until the log has answered", async () => {
    const { app, log, metrics } = await startGateway({ APPEND_TIMEOUT_MS: 20 });
    let answerLate = (): void => undefined;
    log.onAppend = (_records, keep) =>
      new Promise((resolve) => {
        answerLate = () => {
          keep();
          resolve();
        };
      });
    const body = JSON.stringify(NATIVE);
    expect(problemOf(await post(app, body))).toBe("503 LOG_UNAVAILABLE");
    expect(await inflightBytes(metrics)).toBe(body.length);
    answerLate();
    await until(async () => (await inflightBytes(metrics)) === 0);
    expect(log.records).toHaveLength(1);
  });

  test("what the log throws beyond its contract is a 500 without a word about it", async () => {
    const { app, log } = await startGateway();
    for (const error of [
      new Error("secret internals"),
      new TallyhouseError({ code: "LOG_RECORD_TOO_LARGE", action: "dead-letter", message: "secret internals" }),
    ]) {
      log.onAppend = () => Promise.reject(error);
      const answer = await post(app, NATIVE);
      expect(problemOf(answer)).toBe("500 INTERNAL");
      expect(answer.body).not.toContain("secret");
    }
  });
});

describe("bounded work", () => {
  /** A gateway whose appends wait until they are let go. */
  async function startHeld(env: Record<string, number>): Promise<{
    app: FastifyInstance;
    waiting: () => number;
    letGo: () => void;
  }> {
    const { app, log } = await startGateway(env);
    const held: (() => void)[] = [];
    log.onAppend = (_records, keep) =>
      new Promise((resolve) => {
        held.push(() => {
          keep();
          resolve();
        });
      });
    return { app, waiting: () => held.length, letGo: () => held.splice(0).forEach((release) => release()) };
  }

  test("requests in flight: one beyond is refused, and let in when there is room", async () => {
    const { app, waiting, letGo } = await startHeld({ INFLIGHT_REQUESTS_MAX: 3 });
    const taken = [1, 2, 3].map((n) => post(app, { ...NATIVE, id: `e${n}` }));
    await until(() => waiting() === 3);
    const refused = await post(app, NATIVE);
    expect(problemOf(refused)).toBe("503 GATEWAY_OVERLOADED");
    expect(refused.headers["retry-after"]).toBe("1");
    letGo();
    expect((await Promise.all(taken)).map(({ statusCode }) => statusCode)).toEqual([202, 202, 202]);
    const next = post(app, NATIVE);
    await until(() => waiting() === 1);
    letGo();
    expect((await next).statusCode).toBe(202);
  });

  test("bytes in flight: at the limit and one beyond", async () => {
    const body = JSON.stringify(NATIVE);
    const { app, waiting, letGo } = await startHeld({
      BODY_BYTES_MAX: 1_000,
      INFLATED_BYTES_MAX: 1_000,
      INFLIGHT_BYTES_MAX: 2_000,
    });
    const taken = [post(app, body.padEnd(1_000)), post(app, body.padEnd(1_000 - body.length)), post(app, body)];
    await until(() => waiting() === 3);
    expect(problemOf(await post(app, "1"))).toBe("503 GATEWAY_OVERLOADED");
    letGo();
    expect((await Promise.all(taken)).map(({ statusCode }) => statusCode)).toEqual([202, 202, 202]);
  });

  test("refused and broken requests give back what they held", async () => {
    const { app, metrics } = await startGateway({ INFLIGHT_REQUESTS_MAX: 1 });
    for (const [body, headers] of [
      ["{", {}],
      ["[]", {}],
      ["1", { authorization: "Bearer x" }],
      ["x".repeat(2_000_000), {}],
      ["{}", { "content-type": "text/plain" }],
    ] as const) {
      const answer = await post(app, body, headers);
      expect(answer.statusCode).toBeLessThan(500);
      await until(async () => (await inflightBytes(metrics)) === 0);
    }
    expect((await post(app, NATIVE)).statusCode).toBe(202);
  });

  test("a store of credentials that is away is 503, and nothing is appended", async () => {
    const verify = (): Promise<never> =>
      Promise.reject(new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message: "away" }));
    const { app, log } = await startGateway({}, { authenticator: { verify } });
    expect(problemOf(await post(app, NATIVE))).toBe("503 STORE_UNAVAILABLE");
    expect(log.records).toHaveLength(0);
  });
});

async function inflightBytes(metrics: { metrics(): Promise<string> }): Promise<number> {
  return Number(/tallyhouse_gateway_inflight_bytes (\d+)/.exec(await metrics.metrics())?.[1]);
}
