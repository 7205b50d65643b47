/**
 * ClickHouse's HTTP interface for people with questions: one SELECT a request over the views, answered in ClickHouse's formats and
 * with ClickHouse's exceptions, so that its clients connect. docs/analytics.md describes it.
 */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Authenticator } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import type { ReadOnlySql } from "../ports.ts";
import { credentialOf, readRequest, type Refusal } from "./request.ts";

export interface AnalystsPorts {
  readonly sql: ReadOnlySql;
  readonly authenticator: Authenticator;
  readonly logger: Logger;
}

export interface AnalystsEndpoint {
  /** Resolves with the base URL. */
  listen(address: { readonly host: string; readonly port: number }): Promise<string>;
  /** Ends every connection. Safe to repeat. */
  close(): Promise<void>;
}

/** Connections at once; an answer of 32 MiB may wait in each, and statements run one at a time anyway. */
const CONNECTIONS_MAX = 16;
/** How long headers and body may take to arrive. */
const REQUEST_TIMEOUT_MS = 10_000;
/** A connection on which nothing moves for this long is ended; longer than a caller may wait for its turn: 9 statements × 20 s. */
const IDLE_TIMEOUT_MS = 200_000;
const BUSY_RETRY_SECONDS = 5;

const CONTENT_TYPES: readonly (readonly [RegExp, string])[] = [
  [/^JSON(?:Compact)?$/, "application/json; charset=UTF-8"],
  [/^JSON\w*EachRow$/, "application/x-ndjson; charset=UTF-8"],
  [/^CSV/, "text/csv; charset=UTF-8"],
  [/^(?:TSV|TabSeparated)/, "text/tab-separated-values; charset=UTF-8"],
  [/^(?:Pretty|Vertical)/, "text/plain; charset=UTF-8"],
];

/** Builds the endpoint; it listens when it is told to, on a loopback address only. */
export function buildAnalystsEndpoint(ports: AnalystsPorts): AnalystsEndpoint {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS });
  server.maxConnections = CONNECTIONS_MAX;
  server.timeout = IDLE_TIMEOUT_MS;
  server.on("request", (request, response) => {
    answer(request, response, ports).catch((error: unknown) => {
      ports.logger.error({ err: error }, "an analyst's statement failed");
      const text = "the store does not answer; the process's log says why";
      if (response.headersSent) response.destroy();
      else sendRefusal(response, { status: 500, code: 1_002, name: "UNKNOWN_EXCEPTION", text });
    });
  });
  return { listen: (address) => listen(server, address), close: () => close(server) };
}

async function answer(request: IncomingMessage, response: ServerResponse, ports: AnalystsPorts): Promise<void> {
  response.setHeader("x-clickhouse-server-display-name", "tallyhouse");
  response.setHeader("cache-control", "no-store");
  response.setHeader("x-content-type-options", "nosniff");
  const url = new URL(request.url ?? "/", "http://analysts");
  if (url.pathname === "/ping") {
    response.end("Ok.\n");
    return;
  }
  const refusal = refusalOfTarget(request, url) ?? (await refusalOfCaller(request, ports.authenticator));
  if (refusal !== null) {
    sendRefusal(response, refusal);
    return;
  }
  const asked = await readRequest(request, url);
  if (asked.kind === "refused") {
    sendRefusal(response, asked.refusal);
    return;
  }
  response.setHeader("x-clickhouse-query-id", asked.queryId ?? randomUUID());
  sendAnswer(response, await ports.sql.run(asked));
}

function refusalOfTarget({ method }: IncomingMessage, { pathname }: URL): Refusal | null {
  if (pathname !== "/")
    return { status: 404, code: 84, name: "DIRECTORY_DOESNT_EXIST", text: "there is only / and /ping" };
  const isAllowed = method === "GET" || method === "POST";
  return isAllowed ? null : { status: 405, code: 48, name: "NOT_IMPLEMENTED", text: "only GET and POST" };
}

/** An operator's live token opens both modes. A test token opens nothing here: it never reads live data. */
async function refusalOfCaller(request: IncomingMessage, authenticator: Authenticator): Promise<Refusal | null> {
  const credential = credentialOf(request);
  const principal = credential === null ? null : await authenticator.verify(credential);
  if (principal === null) {
    const text = "send the operator's service token as the password";
    return { status: 401, code: 516, name: "AUTHENTICATION_FAILED", text };
  }
  if (principal.mode === "live") return null;
  const text = "a token of mode test cannot read here, because the views hold both modes: send a live one";
  return { status: 403, code: 497, name: "ACCESS_DENIED", text };
}

function sendAnswer(response: ServerResponse, result: Awaited<ReturnType<ReadOnlySql["run"]>>): void {
  switch (result.kind) {
    case "rows": {
      const { body, format, rowsRead, bytesRead } = result;
      const type = CONTENT_TYPES.find(([pattern]) => pattern.test(format))?.[1] ?? "application/octet-stream";
      response.writeHead(200, {
        "content-type": type,
        "x-clickhouse-format": format,
        "x-clickhouse-timezone": "UTC",
        "x-clickhouse-summary": JSON.stringify({ read_rows: String(rowsRead), read_bytes: String(bytesRead) }),
      });
      response.end(body);
      return;
    }
    case "refused": {
      const text = `refused: ${result.reason}. Only SELECT over the views, see docs/analytics.md`;
      return sendRefusal(response, { status: 403, code: 497, name: "ACCESS_DENIED", text });
    }
    case "failed":
      // The engine's own text, its code and name included.
      response.writeHead(400, { "content-type": "text/plain", "x-clickhouse-exception-code": String(result.code) });
      response.end(`${result.message}\n`);
      return;
    case "busy": {
      response.setHeader("retry-after", String(BUSY_RETRY_SECONDS));
      const text = "other statements are waiting already: try again";
      return sendRefusal(response, { status: 503, code: 202, name: "TOO_MANY_SIMULTANEOUS_QUERIES", text });
    }
  }
}

function sendRefusal(response: ServerResponse, { status, code, name, text }: Refusal): void {
  response.writeHead(status, {
    "content-type": "text/plain; charset=UTF-8",
    "x-clickhouse-exception-code": String(code),
    ...(status === 401 ? { "www-authenticate": 'Basic realm="tallyhouse"' } : {}),
    // What was not read of a refused request would be taken for the next one.
    connection: "close",
  });
  response.end(`Code: ${code}. DB::Exception: ${text}. (${name})\n`);
}

async function listen(server: Server, { host, port }: { host: string; port: number }): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, resolve);
  });
  const address = server.address();
  return `http://${host}:${typeof address === "object" && address !== null ? address.port : port}`;
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}
