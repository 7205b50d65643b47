import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { until } from "@tallyhouse/testkit";
import type { FastifyInstance } from "fastify";
import { afterEach, describe, expect, test } from "vitest";
import { createTestLog, listen, LIVE, NATIVE, openConnection, post, problemOf, startGateway } from "./test-gateway.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

interface Seen {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A console that writes down what it is asked and answers what it is told. */
async function startConsole(
  answer: (seen: Seen, response: ServerResponse) => void = (seen, response) =>
    void response.writeHead(200, { "content-type": "application/json", "x-console": "1" }).end(JSON.stringify(seen)),
): Promise<{ url: string; seen: Seen[]; server: Server }> {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (part) => {
      body += String(part);
    });
    request.on("end", () => {
      const one = { method: request.method, url: request.url, headers: request.headers, body };
      seen.push(one);
      answer(one, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, server };
}

async function startWith(
  env: Record<string, number | string>,
  ports: Parameters<typeof startGateway>[1] = {},
): Promise<FastifyInstance> {
  const { app } = await startGateway(env, ports);
  closers.push(() => app.close());
  return app;
}

describe("forwarding", () => {
  test("credentials that the console does not know count as failures; the page's visitors and good ones do not", async () => {
    const { url, seen } = await startConsole((asked, response) => {
      const isKnown = asked.url === "/" || asked.headers.authorization === `Bearer ${LIVE}`;
      response.writeHead(isKnown ? 200 : 401).end();
    });
    const app = await startWith({ CONSOLE_URL: url });
    const ask = (path: string, token: string) =>
      app.inject({ url: path, headers: { host: "localhost", authorization: `Bearer ${token}` } });
    // A 200 of the page does not make a credential known.
    expect((await ask("/", "guess")).statusCode).toBe(200);
    expect((await ask("/v1/usage", LIVE)).statusCode).toBe(200);
    for (let n = 0; n < 20; n += 1) expect((await ask("/admin/v1/status", "guess")).statusCode).toBe(401);
    const asked = seen.length;
    const refused = await ask("/v1/usage?customer=a", "guess");
    expect([problemOf(refused), refused.headers["retry-after"]]).toEqual(["429 AUTH_FAILURES_LIMITED", "60"]);
    expect(problemOf(await post(app, NATIVE, { authorization: "Bearer guess" }))).toBe("429 AUTH_FAILURES_LIMITED");
    expect(seen).toHaveLength(asked);
    expect((await ask("/v1/usage", LIVE)).statusCode).toBe(200);
    expect((await post(app, NATIVE)).statusCode).toBe(202);
    expect((await ask("/", "guess")).statusCode).toBe(200);
  });

  test("reads pass with query, credential and answer; what callers say about themselves does not", async () => {
    const { url, seen } = await startConsole();
    const app = await startWith({ CONSOLE_URL: url });
    const answer = await app.inject({
      url: "/v1/usage?customer=a%2Fb&from=x",
      headers: {
        authorization: `Bearer ${LIVE}`,
        accept: "text/csv",
        "x-forwarded-for": "10.0.0.1",
        forwarded: "for=1",
        expect: "x",
      },
    });
    expect(answer.statusCode).toBe(200);
    expect(answer.headers["x-console"]).toBe("1");
    expect(seen).toHaveLength(1);
    expect(seen[0]).toMatchObject({
      method: "GET",
      url: "/v1/usage?customer=a%2Fb&from=x",
      headers: { authorization: `Bearer ${LIVE}`, accept: "text/csv", "x-forwarded-for": "127.0.0.1" },
    });
    expect(seen[0]?.headers).not.toHaveProperty("forwarded");
    // What belongs to the console's connection is not the caller's.
    expect(answer.headers).not.toHaveProperty("keep-alive");
  });

  test("the running period passes under both of its paths, and guesses at either count", async () => {
    const { url, seen } = await startConsole(
      (asked, response) => void response.writeHead(asked.headers.authorization === `Bearer ${LIVE}` ? 200 : 401).end(),
    );
    const app = await startWith({ CONSOLE_URL: url });
    const paths = ["/v1/usage/current-period?customer=a", "/api/usage/current-period?customer=a"];
    const ask = (path: string, token: string) =>
      app.inject({ url: path, headers: { authorization: `Bearer ${token}` } });
    for (const path of paths) expect((await ask(path, LIVE)).statusCode).toBe(200);
    expect(seen.map((asked) => asked.url)).toEqual(paths);
    for (let n = 0; n < 20; n += 1) expect((await ask(paths[n % 2] ?? "", "guess")).statusCode).toBe(401);
    expect(problemOf(await ask(paths[1] ?? "", "guess"))).toBe("429 AUTH_FAILURES_LIMITED");
    expect(problemOf(await app.inject({ url: "/api/usage/other" }))).toBe("404 NOT_FOUND");
  });

  test("the admin API passes in every method, body and all", async () => {
    const { url, seen } = await startConsole();
    const app = await startWith({ CONSOLE_URL: url });
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "GET"] as const) {
      const body = method === "GET" ? {} : { payload: '{"a": 1 }', headers: { "content-type": "application/yaml" } };
      expect((await app.inject({ method, url: "/admin/v1/meters/apply?x=1", ...body })).statusCode).toBe(200);
    }
    expect(seen.map(({ method, url, body }) => `${method} ${url} ${body}`)).toEqual([
      'POST /admin/v1/meters/apply?x=1 {"a": 1 }',
      'PUT /admin/v1/meters/apply?x=1 {"a": 1 }',
      'PATCH /admin/v1/meters/apply?x=1 {"a": 1 }',
      'DELETE /admin/v1/meters/apply?x=1 {"a": 1 }',
      "GET /admin/v1/meters/apply?x=1 ",
    ]);
    expect(seen[0]?.headers["content-type"]).toBe("application/yaml");
  });

  test("the console's own problems pass unchanged, and are asked for once", async () => {
    const { url, seen } = await startConsole(
      (_seen, response) =>
        void response
          .writeHead(503, { "retry-after": "7", "content-type": "application/problem+json" })
          .end('{"code":"X"}'),
    );
    const app = await startWith({ CONSOLE_URL: url });
    const answer = await app.inject({ url: "/v1/usage" });
    expect([answer.statusCode, answer.headers["retry-after"], answer.body]).toEqual([503, "7", '{"code":"X"}']);
    expect(seen).toHaveLength(1);
  });

  test("a console that is away, silent or dies is a problem of its own; ingest goes on", async () => {
    const silent = await startConsole(() => undefined);
    const dying = await startConsole((_seen, response) => void response.socket?.destroy());
    for (const url of ["http://127.0.0.1:9", silent.url, dying.url]) {
      const app = await startWith({ CONSOLE_URL: url, CONSOLE_TIMEOUT_MS: 50 });
      expect(problemOf(await app.inject({ url: "/v1/usage" }))).toBe("503 CONSOLE_UNAVAILABLE");
      expect(problemOf(await app.inject({ method: "POST", url: "/admin/v1/x", payload: "1" }))).toBe(
        "503 CONSOLE_UNAVAILABLE",
      );
      expect((await post(app, NATIVE)).statusCode).toBe(202);
    }
  });

  test("at most FORWARDS_MAX wait for the console at once", async () => {
    const held: ServerResponse[] = [];
    const { url } = await startConsole((_seen, response) => void held.push(response));
    const app = await startWith({ CONSOLE_URL: url, FORWARDS_MAX: 2 });
    const taken = [app.inject({ url: "/v1/usage" }), app.inject({ url: "/v1/usage" })];
    await until(() => held.length === 2);
    expect(problemOf(await app.inject({ url: "/v1/usage" }))).toBe("503 GATEWAY_OVERLOADED");
    for (const response of held) response.end("ok");
    expect((await Promise.all(taken)).map(({ statusCode }) => statusCode)).toEqual([200, 200]);
  });

  test.each([
    "/v1/usage/../../",
    "/v1/usage/..",
    "/v1/usage/%2e%2e/%2e%2e/",
    "/v1/usage/..%2f..%2f",
    "/v1/usage/events/%2e%2e/%2e%2e/",
    "/v1/usage/events/a%2fb",
    "/v1/usage/events/a/%2E%2e",
    "/v1/usage/events/./a",
    "/v1/usage/events/a/..%2f..%2fb",
    "/v1/usage/events/a/b%2F..",
    "/v1/usage/events/a/..b",
    "/v1/usage/events//a",
    "/v1/usage/events/a/b/void%2f",
    "/admin/v1/events/a/../void",
    "/admin/v1/events/a/b/%2e%2e",
    "/admin/v1/events%2Fa/b/void",
    "/admin/v1/customers/..%2f..%2fstatus",
    "/admin/v1/customers/a%2f../plan",
    "/admin/v1/customers/a/%2e%2e/plan",
    "/admin/v1/customers/a/b%2fc",
    "/admin/v1/customers%2Fa",
    "/v1/usage/%2E%2E%5C",
    "/v1/usage/\\..\\..\\",
    "/admin//x",
    "/admin/./x",
    "//example.org/admin/x",
    "/Admin/x",
    "/v1/usage/%252e%252e/..",
    "/admin",
    "/v1/usages",
    "/V1/events",
    "/assets/../v1/usage",
  ])("%s opens nothing", async (path) => {
    const { url, seen } = await startConsole();
    const app = await startWith({ CONSOLE_URL: url });
    const port = await listen(app);
    const { socket, received, ended } = await openConnection(port);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    await ended;
    expect(received()).toMatch(/^HTTP\/1.1 404 [^]*"code":"NOT_FOUND"/);
    expect(seen).toEqual([]);
  });

  test.each(["a/b", "a%2f..%2f", "a..b", "%2F", "./b", "ü ☃💶", "a\\b;c?d#e", "☃".repeat(256), "💶".repeat(128)])(
    "source, id and customer %j reach the console as they were encoded",
    async (name) => {
      const { url, seen } = await startConsole();
      const app = await startWith({ CONSOLE_URL: url });
      const port = await listen(app);
      const text = encodeURIComponent(name);
      const paths = [`/v1/usage/events/${text}/${text}?customer=${text}`, `/admin/v1/events/${text}/${text}/void`];
      expect((await fetch(`http://127.0.0.1:${port}${paths[0]}`)).status).toBe(200);
      expect((await fetch(`http://127.0.0.1:${port}${paths[1]}`, { method: "POST", body: "{}" })).status).toBe(200);
      for (const path of [`/admin/v1/customers/${text}`, `/admin/v1/customers/${text}/plan`]) {
        expect((await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body: "{}" })).status).toBe(200);
        paths.push(path);
      }
      expect(seen.map((asked) => asked.url)).toEqual(paths);
    },
  );

  test("a path that cannot be decoded is a bad request", async () => {
    const app = await startWith({});
    for (const url of ["/admin/%zz", "/v1/usage/events/a/%ff", "/v1/usage/events/%e2%98/b"])
      expect(problemOf(await app.inject({ url }))).toBe("400 REQUEST_INVALID");
  });
});

describe("what needs no sign-in is for this machine only", () => {
  const get = (app: FastifyInstance, url: string, sign: { host?: string; remoteAddress?: string; headers?: object }) =>
    app.inject({
      url,
      remoteAddress: sign.remoteAddress ?? "127.0.0.1",
      headers: { host: sign.host ?? "localhost:8080", ...sign.headers },
    });

  test.each(["/", "/assets/page.css", "/metrics"])("%s", async (path) => {
    const { url } = await startConsole();
    const app = await startWith({ CONSOLE_URL: url });
    const allowed = [
      {},
      { host: "127.0.0.1" },
      { host: "127.0.0.1:8080" },
      { host: "LOCALHOST" },
      { host: "[::1]:8080", remoteAddress: "::1" },
      { remoteAddress: "::ffff:127.0.0.1" },
      { remoteAddress: "127.8.9.1" },
    ];
    for (const sign of allowed) expect((await get(app, path, sign)).statusCode).toBe(200);
    const refused = [
      { remoteAddress: "10.0.0.7" },
      { remoteAddress: "::ffff:10.0.0.7" },
      { remoteAddress: "2001:db8::1" },
      // DNS rebinding: another site's name, resolved to this machine.
      { host: "evil.example" },
      { host: "localhost.evil.example" },
      { host: "127.0.0.1.evil.example:8080" },
      { host: "evil.example:127.0.0.1" },
      { host: "127.0.0.1@evil.example" },
      // A reverse proxy on this machine.
      { headers: { "x-forwarded-for": "10.0.0.7" } },
      { headers: { forwarded: "for=10.0.0.7" } },
    ];
    for (const sign of refused) expect(problemOf(await get(app, path, sign))).toBe("403 LOOPBACK_ONLY");
  });

  test("usage, admin and ingest are not: they have credentials", async () => {
    const { url } = await startConsole();
    const app = await startWith({ CONSOLE_URL: url });
    for (const path of ["/v1/usage", "/admin/v1/status", "/livez"]) {
      expect((await get(app, path, { host: "usage.example", remoteAddress: "10.0.0.7" })).statusCode).toBe(200);
    }
  });
});

describe("routes", () => {
  test.each([
    ["GET", "/v1/events", "405 METHOD_NOT_ALLOWED", "POST"],
    ["DELETE", "/v1/events", "405 METHOD_NOT_ALLOWED", "POST"],
    ["POST", "/v1/usage", "405 METHOD_NOT_ALLOWED", "GET, HEAD"],
    ["PUT", "/", "405 METHOD_NOT_ALLOWED", "GET, HEAD"],
    ["GET", "/v1/events/", "404 NOT_FOUND", undefined],
    ["POST", "/v1/event", "404 NOT_FOUND", undefined],
    ["GET", "/.env", "404 NOT_FOUND", undefined],
  ] as const)("%s %s", async (...[method, url, expected, allow]) => {
    const app = await startWith({});
    const answer = await app.inject({ method, url });
    expect(problemOf(answer)).toBe(expected);
    expect(answer.headers["allow"]).toBe(allow);
    expect(answer.headers["x-content-type-options"]).toBe("nosniff");
  });
});

describe("health", () => {
  test("ready when the log and the console answer, and it says which does not", async () => {
    const { url } = await startConsole((_seen, response) => void response.writeHead(404).end());
    const log = createTestLog();
    const app = await startWith({ CONSOLE_URL: url }, { log });
    const ready = await app.inject({ url: "/readyz" });
    expect([ready.statusCode, ready.json()]).toEqual([
      200,
      { status: "ready", parts: { eventLog: "ok", console: "ok" } },
    ]);
    log.isAway = true;
    const unready = await app.inject({ url: "/readyz" });
    expect([unready.statusCode, unready.json().parts]).toEqual([503, { eventLog: "unavailable", console: "ok" }]);
    expect((await app.inject({ url: "/livez" })).statusCode).toBe(200);
  });

  test("G9 a part that hangs is not ready", async () => {
    const { url } = await startConsole(() => undefined);
    const log = { ...createTestLog(), bounds: () => new Promise<never>(() => undefined) };
    const app = await startWith({ CONSOLE_URL: url, READINESS_TIMEOUT_MS: 20 }, { log });
    const answer = await app.inject({ url: "/readyz" });
    expect([answer.statusCode, answer.json().parts]).toEqual([
      503,
      { eventLog: "does not answer", console: "does not answer" },
    ]);
  });

  test("the composer's readiness is what counts", async () => {
    const app = await startWith({}, { readiness: async () => ({ isReady: false, parts: { aggregator: "behind" } }) });
    const answer = await app.inject({ url: "/readyz" });
    expect([answer.statusCode, answer.json()]).toEqual([503, { status: "not ready", parts: { aggregator: "behind" } }]);
  });

  test("metrics count requests by status and events by result", async () => {
    const { app } = await startGateway();
    await post(app, NATIVE);
    await post(app, "{");
    const text = (await app.inject({ url: "/metrics", headers: { host: "localhost" } })).body;
    expect(text).toMatch(/tallyhouse_gateway_requests_total\{status="202"\} 1/);
    expect(text).toMatch(/tallyhouse_gateway_requests_total\{status="400"\} 1/);
    expect(text).toMatch(/tallyhouse_gateway_events_total\{result="accepted"\} 1/);
    expect(text).toMatch(/tallyhouse_gateway_append_seconds_count 1/);
    expect(text).toMatch(/tallyhouse_gateway_inflight_bytes 0/);
  });
});
