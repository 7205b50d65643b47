import { until } from "@tallyhouse/testkit";
import type { FastifyInstance } from "fastify";
import { afterEach, describe, expect, test } from "vitest";
import {
  createTestLog,
  listen,
  LIVE,
  NATIVE,
  openConnection,
  rawPost,
  startGateway,
  type TestLog,
} from "./test-gateway.ts";

const opened: FastifyInstance[] = [];
afterEach(async () => {
  for (const app of opened.splice(0)) await app.close();
});
async function started(
  env: Record<string, number> = {},
  log: TestLog = createTestLog(),
): Promise<{ app: FastifyInstance; log: TestLog; port: number; metrics: { metrics(): Promise<string> } }> {
  const { app, metrics } = await startGateway(env, { log });
  opened.push(app);
  return { app, log, metrics, port: await listen(app) };
}
const BODY = JSON.stringify(NATIVE);

/** A log whose appends wait until `letGo`. */
function heldLog(): { log: TestLog; waiting: () => number; letGo: () => void } {
  const log = createTestLog();
  const held: (() => void)[] = [];
  log.onAppend = (_records, keep) =>
    new Promise((resolve) => {
      held.push(() => {
        keep();
        resolve();
      });
    });
  return { log, waiting: () => held.length, letGo: () => held.splice(0).forEach((release) => release()) };
}

describe("a stop", () => {
  test("G1 answers everything it took, under load, and takes nothing more", async () => {
    const { app, log, port } = await started({ CLOSE_GRACE_MS: 600_000 });
    log.onAppend = async (_records, keep) => {
      await new Promise((resolve) => setImmediate(resolve));
      keep();
    };
    const acknowledged: string[] = [];
    const statuses: (number | "cut")[] = [];
    let isOver = false;
    const lane = async (name: number): Promise<void> => {
      for (let n = 0; !isOver && n < 10_000; n += 1) {
        const id = `${name}-${n}`;
        try {
          const answer = await fetch(`http://127.0.0.1:${port}/v1/events`, {
            method: "POST",
            headers: { authorization: `Bearer ${LIVE}`, "content-type": "application/json" },
            body: JSON.stringify({ ...NATIVE, id }),
          });
          statuses.push(answer.status);
          const { results = [] } = (await answer.json()) as { results?: { status: string }[] };
          if (answer.status === 202 && results[0]?.status === "accepted") acknowledged.push(id);
        } catch {
          statuses.push("cut");
          isOver = true;
        }
      }
    };
    const lanes = Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(lane));
    await until(() => acknowledged.length > 100);
    await app.close();
    isOver = true;
    await lanes;
    const stored = new Set(log.records.map(({ key }) => key?.toString().split("/")[3]));
    expect(acknowledged.length).toBeGreaterThan(100);
    expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
    // Every append that was begun was answered: nothing stored went without its 202.
    expect(stored.size).toBe(acknowledged.length);
    expect(statuses.filter((status) => ![202, 503, "cut"].includes(status))).toEqual([]);
  });

  test("waits for an append, answers with connection: close, and refuses what comes meanwhile", async () => {
    const { log, waiting, letGo } = heldLog();
    // The grace is no way out here: a stop of ten minutes would fail the test.
    const { app, port } = await started({ CLOSE_GRACE_MS: 600_000 }, log);
    const first = await openConnection(port);
    const second = await openConnection(port);
    const idle = await openConnection(port);
    first.socket.write(rawPost(BODY));
    second.socket.write(rawPost(BODY).slice(0, -1));
    await until(() => waiting() === 1);
    let isClosed = false;
    const closing = (async () => {
      await app.close();
      isClosed = true;
    })();
    await until(async () => {
      const late = openConnection(port);
      return late.then(
        ({ socket }) => void socket.destroy(),
        () => true,
      );
    });
    second.socket.write("}");
    await until(() => waiting() === 2);
    expect(isClosed).toBe(false);
    letGo();
    await Promise.all([first.ended, second.ended, closing]);
    for (const { received } of [first, second]) {
      expect(received()).toMatch(/^HTTP\/1.1 202 Accepted\r\n/);
      expect(received().toLowerCase()).toContain("\r\nconnection: close\r\n");
    }
    await idle.ended;
    expect(log.records).toHaveLength(2);
  });

  test("is no longer than its grace, whatever a caller does", async () => {
    const { app, port } = await started({ APPEND_TIMEOUT_MS: 50, CLOSE_GRACE_MS: 100 });
    const slow = await openConnection(port);
    slow.socket.write(rawPost(BODY).slice(0, -1));
    const silent = await openConnection(port);
    await app.close();
    await Promise.all([slow.ended, silent.ended]);
    expect(slow.received()).toBe("");
  });
});

describe("callers that dawdle, vanish or speak something else", () => {
  test("a slow body is answered 408, and its share is given back", async () => {
    const { port, metrics, log } = await started({ REQUEST_TIMEOUT_MS: 100 });
    const { socket, received, ended } = await openConnection(port);
    socket.write(rawPost(BODY).slice(0, -1));
    await ended;
    expect(received()).toMatch(/^HTTP\/1.1 408 Request Timeout\r\n/);
    expect(received()).toMatch(/content-type: application\/problem\+json\r\n/);
    expect(JSON.parse(received().split("\r\n\r\n")[1] ?? "")).toMatchObject({ status: 408, code: "REQUEST_TIMEOUT" });
    await until(async () => (await metrics.metrics()).includes("tallyhouse_gateway_inflight_bytes 0"));
    expect(log.records).toHaveLength(0);
  });

  test("slow headers are answered 408 too", async () => {
    const { port } = await started({ REQUEST_TIMEOUT_MS: 100 });
    const { socket, received, ended } = await openConnection(port);
    socket.write("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n");
    await ended;
    expect(received()).toMatch(/^HTTP\/1.1 408 /);
  });

  test("a caller that goes before its answer leaves nothing behind; its event is stored all the same", async () => {
    const { log, waiting, letGo } = heldLog();
    const { port, metrics } = await started({}, log);
    const gone = await openConnection(port);
    gone.socket.write(rawPost(BODY));
    await until(() => waiting() === 1);
    gone.socket.destroy();
    await gone.ended;
    letGo();
    await until(async () => (await metrics.metrics()).includes("tallyhouse_gateway_inflight_bytes 0"));
    expect(log.records).toHaveLength(1);
  });

  test("a caller that goes in the middle of its body leaves nothing behind", async () => {
    const { port, metrics } = await started();
    const held = async (bytes: number): Promise<boolean> =>
      (await metrics.metrics()).includes(`tallyhouse_gateway_inflight_bytes ${bytes}\n`);
    const gone = await openConnection(port);
    gone.socket.write(rawPost(BODY).slice(0, -1));
    await until(() => held(BODY.length));
    gone.socket.destroy();
    await until(() => held(0));
  });

  test.each([
    ["no HTTP", "hello\r\n\r\n", 400],
    ["endless headers", `GET / HTTP/1.1\r\nx: ${"x".repeat(20_000)}\r\n\r\n`, 431],
    ["two lengths", "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400],
    [
      "a length and chunks",
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      400,
    ],
  ])("%s", async (_name, text, status) => {
    const { port } = await started();
    const { socket, received, ended } = await openConnection(port);
    socket.write(text);
    await ended;
    expect(received()).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(JSON.parse(received().split("\r\n\r\n")[1] ?? "")).toMatchObject({ status, code: "REQUEST_INVALID" });
  });

  test("a body of untold length holds the largest size while it arrives", async () => {
    const { port, metrics } = await started({
      BODY_BYTES_MAX: 1_000,
      INFLATED_BYTES_MAX: 1_000,
      INFLIGHT_BYTES_MAX: 1_500,
    });
    const chunked = await openConnection(port);
    const head = rawPost("").replace("content-length: 0", "transfer-encoding: chunked");
    chunked.socket.write(`${head}${BODY.length.toString(16)}\r\n${BODY}\r\n`);
    await until(async () => (await metrics.metrics()).includes("tallyhouse_gateway_inflight_bytes 1000\n"));
    const second = await openConnection(port);
    second.socket.write(rawPost(BODY.padEnd(501)));
    await until(() => second.received().startsWith("HTTP/1.1 503"));
    second.socket.destroy();
    const third = await openConnection(port);
    third.socket.write(rawPost(BODY.padEnd(500)));
    await until(() => third.received().startsWith("HTTP/1.1 202"));
    third.socket.destroy();
    chunked.socket.write("0\r\n\r\n");
    await until(() => chunked.received().startsWith("HTTP/1.1 202"));
    chunked.socket.destroy();
  });

  test("a body in chunks is read and bounded as any other", async () => {
    const { app, port } = await started({ BODY_BYTES_MAX: 1_000 });
    const send = (body: string): Promise<Response> =>
      fetch(`http://127.0.0.1:${port}/v1/events`, {
        method: "POST",
        headers: { authorization: `Bearer ${LIVE}`, "content-type": "application/json" },
        body: new Blob([body]).stream(),
        duplex: "half",
      });
    expect((await send(BODY.padEnd(1_000))).status).toBe(202);
    expect((await send(BODY.padEnd(1_001))).status).toBe(413);
    expect(app.server.maxConnections).toBe(10_000);
  });

  test("connections beyond the limit are dropped", async () => {
    const { port } = await started({ CONNECTIONS_MAX: 1 });
    const first = await openConnection(port);
    const second = await openConnection(port);
    await second.ended;
    first.socket.write(rawPost(BODY));
    await until(() => first.received().startsWith("HTTP/1.1 202"));
    first.socket.destroy();
  });
});
