/**
 * A process that speaks ClickHouse's HTTP interface over chDB, on loopback, for tests and development without a server:
 * `clickhouse-front.ts '{"folder":"…","port":8123}'`, usually through startClickHouse (clickhouse.ts). SIGTERM lets the
 * statements in flight end. What it refuses (sessions, external data, ClickHouse's own compression) it says.
 */
import { randomUUID } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { beginAnswer, sendBroken, sendStream, sendWhole } from "./clickhouse-answer.ts";
import { type Engine, openEngine, type OpenSession, STATEMENTS_WAITING_MAX } from "./clickhouse-engine.ts";
import { describeError, FrontError, notImplemented } from "./clickhouse-error.ts";
import { type FrontRequest, readRequest } from "./clickhouse-request.ts";
import { answerFormatOf, breakageOf, isStreamed, kindOf } from "./clickhouse-statement.ts";

/** More than may wait, so that a statement too many is refused with a reason. */
const CONNECTIONS_MAX = 2 * STATEMENTS_WAITING_MAX;
/** A body that is not here by then is given up. */
const REQUEST_TIMEOUT_MS = 300_000;
const KEEP_ALIVE_MS = 10_000;
/** 1 MiB, as a server. */
const URL_BYTES_MAX = 1024 * 1024;

interface Place {
  readonly folder: string;
  readonly port: number;
  readonly username?: string;
  readonly password?: string;
}

const place = JSON.parse(process.argv[2] ?? "") as Place;
const incoming = join(place.folder, "incoming");
// Rows of statements that a kill interrupted: nobody was told that they are stored.
await rm(incoming, { recursive: true, force: true });
await mkdir(incoming, { recursive: true });
const engine: Engine = await openEngine(
  join(place.folder, "data"),
  () => new FrontError(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many statements are waiting."),
);

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://front");
  if (url.pathname === "/ping" || url.pathname === "/replicas_status") {
    response.end("Ok.\n");
    return;
  }
  if (url.pathname !== "/") {
    response.writeHead(404).end(`There is no handle ${url.pathname}\n`);
    return;
  }
  const queryId = url.searchParams.get("query_id") ?? randomUUID();
  const answer = beginAnswer(request, response, {
    queryId,
    timezone: url.searchParams.get("session_timezone") ?? engine.timezone,
    compresses: url.searchParams.get("enable_http_compression") === "1",
  });
  const path = join(incoming, randomUUID());
  try {
    authenticate(request, url);
    const asked = await readRequest(request, url, { path, engine });
    if (asked.sql.trim() === "") {
      if (request.method === "GET") response.end("Ok.\n");
      else throw new FrontError(62, "SYNTAX_ERROR", "Empty query");
      return;
    }
    const surroundings = {
      database: asked.fields.get("database") ?? headerOf(request, "x-clickhouse-database"),
      settings: asked.settings,
      params: asked.params,
      isReadOnly: request.method === "GET",
    };
    await engine.within(surroundings, async (session) => answerStatement({ request, answer, asked, session }));
  } finally {
    await rm(path, { force: true });
  }
}

async function answerStatement(input: {
  request: IncomingMessage;
  answer: ReturnType<typeof beginAnswer>;
  asked: FrontRequest;
  session: OpenSession;
}): Promise<void> {
  const { request, answer, asked, session } = input;
  const { sql, rows, fields } = asked;
  const wanted = fields.get("default_format") ?? headerOf(request, "x-clickhouse-format") ?? "TabSeparated";
  const format = answerFormatOf(sql) ?? wanted;
  if (rows !== undefined) {
    const outcome = await session.insertFile(rows.head, rows);
    return sendWhole(answer, { outcome, format, isInsert: true });
  }
  const kind = kindOf(sql);
  if (kind === "stateful") throw notImplemented("What changes a session (SET, USE, temporary tables)");
  const breakage = breakageOf(sql);
  const describe = (error: unknown): string => describeError(error, engine.version).text;
  if (kind === "select" && breakage === undefined && isStreamed(format) && fields.get("wait_end_of_query") !== "1") {
    const pieces = (async function* () {
      for await (const { bytes } of session.stream(sql, wanted)) yield bytes;
    })();
    return sendStream(answer, { pieces, format, describe });
  }
  const outcome = await session.run(sql, wanted);
  if (breakage === undefined) return sendWhole(answer, { outcome, format, isInsert: kind === "insert" });
  const text = describe(new FrontError(241, "MEMORY_LIMIT_EXCEEDED", "The statement asked for this error."));
  return sendBroken(answer, { bytes: outcome.bytes, format, breakage, text });
}

function sendError(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    // The answer is under way and its end is unknown: no empty chunk, so that nobody takes it for whole.
    response.destroy();
    return;
  }
  const { code, status, text } = describeError(error, engine.version);
  response.setHeader("X-ClickHouse-Exception-Code", String(code));
  response.setHeader("Content-Type", "text/plain; charset=UTF-8");
  response.writeHead(status).end(`${text}\n`);
}

/** By header, by Basic or by fields of the URL, as a server takes them. */
function authenticate(request: IncomingMessage, url: URL): void {
  if (place.username === undefined) return;
  const [, basic] = /^Basic (.+)$/i.exec(request.headers.authorization ?? "") ?? [];
  const [username, password] =
    basic === undefined
      ? [
          headerOf(request, "x-clickhouse-user") ?? url.searchParams.get("user") ?? "default",
          headerOf(request, "x-clickhouse-key") ?? url.searchParams.get("password") ?? "",
        ]
      : splitOnce(Buffer.from(basic, "base64").toString("utf8"));
  if (username === place.username && password === (place.password ?? "")) return;
  throw new FrontError(
    516,
    "AUTHENTICATION_FAILED",
    `${username}: Authentication failed: password is incorrect, or there is no user with such name.`,
  );
}

function splitOnce(credentials: string): [string, string] {
  const colon = credentials.indexOf(":");
  return colon === -1 ? [credentials, ""] : [credentials.slice(0, colon), credentials.slice(colon + 1)];
}

function headerOf(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}

const inFlight = new Set<Promise<void>>();
const server = createServer(
  { maxHeaderSize: URL_BYTES_MAX, requestTimeout: REQUEST_TIMEOUT_MS },
  (request, response) => {
    // An aborted body is reported by its reader; without a listener the event would end the process.
    request.on("error", () => undefined);
    const done: Promise<void> = handle(request, response)
      .catch((error: unknown) => sendError(response, error))
      .finally(() => inFlight.delete(done));
    inFlight.add(done);
  },
);
server.maxConnections = CONNECTIONS_MAX;
server.keepAliveTimeout = KEEP_ALIVE_MS;
server.listen(place.port, "127.0.0.1");

async function stop(): Promise<void> {
  server.close();
  server.closeIdleConnections();
  await Promise.allSettled(inFlight);
  engine.close();
  process.exit(0);
}
process.once("SIGTERM", () => void stop());
