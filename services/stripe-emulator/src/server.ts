import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Answer, badRequest, refusal } from "./answer.ts";
import { type Api, rateLimited } from "./api.ts";
import type { Engine } from "./engine.ts";
import { seededText } from "./ids.ts";
import type { RequestCounts } from "./limits.ts";
import { renderPage } from "./page.ts";
import { truthJson, truthLines } from "./truth.ts";

/** The largest documented request is far smaller. */
const BODY_BYTES_MAX = 1 << 20;
/** Bounds memory and the journal's queue; calls beyond it are answered 429. */
const REQUESTS_IN_FLIGHT_MAX = 4_096;
const REQUEST_TIMEOUT_MS = 30_000;
const HEADERS_TIMEOUT_MS = 10_000;
/** Longer than a client keeps an idle connection, so that it is the client who closes it. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;

export interface ServerOptions {
  readonly api: Api;
  readonly engine: Engine;
  readonly counts: RequestCounts;
  /** Sent as `Stripe-Version` when the request names none. */
  readonly apiVersion: string;
  /** True once no new request may stay on its connection. */
  isClosing(): boolean;
}

/**
 * The HTTP front: the API, and for loopback clients `/`, `/_emulator/truth` and `/_emulator/requests`. Not listening yet.
 * Plain `node:http`: one table drives all routes, so a framework would add a second router and cost throughput.
 */
export function buildServer(options: ServerOptions): Server {
  const { engine } = options;
  let inFlight = 0;
  let requests = 0;
  // Request ids repeat only where nothing was written in between: harmless, and reproducible.
  const firstSeq = engine.state.seq;
  const server = createServer((request, response) => {
    requests += 1;
    const requestId = `req_${seededText(engine.state.seed, `request ${firstSeq} ${requests}`, 14)}`;
    inFlight += 1;
    respond({ options, request, response, requestId, isFull: inFlight > REQUESTS_IN_FLIGHT_MAX })
      // A connection that broke off has nobody to tell; the work itself is done or refused already.
      .catch(() => response.destroy())
      .finally(() => {
        inFlight -= 1;
      });
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS;
  return server;
}

interface Exchange {
  readonly options: ServerOptions;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly isFull: boolean;
}

async function respond(exchange: Exchange): Promise<void> {
  const { options, request, response, isFull } = exchange;
  const [path = "/", query = ""] = splitOnce(request.url ?? "/", "?");
  if (options.isClosing()) response.shouldKeepAlive = false;
  if (path === "/" || path.startsWith("/_emulator/")) {
    await respondLocally(exchange, path, query);
    return;
  }
  let answer: Answer;
  try {
    const body = await readBody(request);
    if (isFull) answer = rateLimited("global-concurrency");
    else if (body === undefined) answer = tooLarge();
    else answer = await options.api.answer(apiRequest(request, { path, query, body }));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    answer = refusal(500, { type: "api_error", message: `The emulator failed: ${reason}` });
  }
  send(exchange, answer);
}

function apiRequest(request: IncomingMessage, parts: { path: string; query: string; body: string }) {
  return {
    ...parts,
    method: request.method ?? "GET",
    contentType: request.headers["content-type"] ?? "",
    authorization: request.headers.authorization,
    idempotencyKey: header(request, "idempotency-key"),
  };
}

function send({ options, request, response, requestId }: Exchange, answer: Answer): void {
  const body = Buffer.from(JSON.stringify(answer.body));
  const headers: Record<string, string | number> = {
    "Content-Type": "application/json",
    "Content-Length": body.length,
    "Request-Id": requestId,
    "Stripe-Version": header(request, "stripe-version") ?? options.apiVersion,
    ...answer.headers,
  };
  const account = header(request, "stripe-account");
  if (account !== undefined) headers["Stripe-Account"] = account;
  const key = header(request, "idempotency-key");
  if (key !== undefined) headers["Idempotency-Key"] = key;
  response.writeHead(answer.status, headers).end(body);
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** The whole body, or undefined when it is too large (the rest is read and dropped, so that the answer arrives). */
function readBody(request: IncomingMessage): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
    });
    request.on("end", () => resolve(bytes > BODY_BYTES_MAX ? undefined : Buffer.concat(chunks).toString("utf8")));
    request.on("error", reject);
    request.on("close", () => {
      if (!request.complete) reject(new Error("the client closed the connection"));
    });
  });
}

function tooLarge(): Answer {
  return { ...badRequest(`The request body is larger than ${BODY_BYTES_MAX} bytes.`), status: 413 };
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** The emulator's own paths: no key, so only for clients on this machine. */
async function respondLocally(exchange: Exchange, path: string, query: string): Promise<void> {
  const { options, request, response } = exchange;
  const { engine, counts } = options;
  request.resume();
  if (!isLoopback(request.socket.remoteAddress ?? "")) {
    response.writeHead(403, { "Content-Type": "text/plain" }).end("Only for clients on this machine.\n");
    return;
  }
  const isRead = request.method === "GET";
  await engine.durable();
  if (isRead && path === "/") {
    response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(renderPage(engine.state));
  } else if (isRead && path === "/_emulator/truth") {
    const isLines = new URLSearchParams(query).get("format") === "ndjson";
    response.writeHead(200, { "Content-Type": isLines ? "application/x-ndjson" : "application/json" });
    await pipeline(Readable.from(isLines ? truthLines(engine.state) : truthJson(engine.state)), response);
  } else if (isRead && path === "/_emulator/requests") {
    response.writeHead(200, { "Content-Type": "application/json" }).end(`${JSON.stringify(counts.report())}\n`);
  } else {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("No such page.\n");
  }
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(?:::ffff:)?127\./.test(address);
}
