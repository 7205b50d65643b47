/** What a request to the front asks for: its fields, its statement, and the file that holds its rows. */
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from "node:zlib";
import { type Engine, NO_SURROUNDINGS, type PackedFile } from "./clickhouse-engine.ts";
import { FrontError, notImplemented, QUERY_IS_TOO_LARGE } from "./clickhouse-error.ts";
import { type InsertHead, insertHeadOf } from "./clickhouse-statement.ts";

/** Longest statement, with VALUES in it: longer data belongs behind FORMAT, where it is never held in memory. */
const STATEMENT_BYTES_MAX = 64 * 1024 * 1024;
/** The head of an INSERT must end within this, when statement and rows share the body. */
const INSERT_HEAD_BYTES_MAX = 256 * 1024;
/** Rows of one INSERT, as sent. */
const ROWS_BYTES_MAX = 2 * 1024 * 1024 * 1024;

/** Fields that are the interface's own and no settings of the engine. */
const NO_SETTINGS = new Set(
  (
    "query query_id database default_format user password quota_key role stacktrace session_id session_timeout " +
    "session_check close_session client_protocol_version wait_end_of_query buffer_size compress decompress"
  ).split(" "),
);
/** Encodings by the name the engine has for them; `deflate` is its only other name. */
const ENGINE_COMPRESSION: ReadonlyMap<string, string> = new Map([
  ...["gzip", "br", "zstd", "lz4", "deflate", "xz"].map((name) => [name, name] as const),
  ["", "none"],
  ["identity", "none"],
]);

/** Node cannot unpack these. */
const ENGINE_ONLY = new Set(["lz4", "xz"]);

/** A request, read to its end. */
export interface FrontRequest {
  readonly fields: ReadonlyMap<string, string>;
  readonly settings: ReadonlyMap<string, string>;
  readonly params: ReadonlyMap<string, string>;
  readonly sql: string;
  readonly rows: ({ readonly head: InsertHead } & PackedFile) | undefined;
}

/**
 * Reads the request. Rows of an INSERT go to the file `path`, still packed where the engine can unpack them; the
 * caller removes it.
 * @throws {FrontError} for what the front does not do, and beyond its limits.
 */
export async function readRequest(
  request: IncomingMessage,
  url: URL,
  { path, engine }: { path: string; engine: Engine },
): Promise<FrontRequest> {
  const fields = new Map(url.searchParams);
  if (fields.get("compress") === "1" || fields.get("decompress") === "1")
    throw notImplemented("ClickHouse's own compression (compress, decompress); use Content-Encoding");
  const encoding = request.headers["content-encoding"] ?? "";
  const statement = fields.get("query") ?? "";
  const head = insertHeadOf(statement);
  if (head !== undefined) {
    const compression = ENGINE_COMPRESSION.get(encoding);
    if (compression === undefined) throw notImplemented(`Content-Encoding ${encoding}`);
    await storeRows(request, path);
    return { ...split(fields), sql: statement, rows: { head, path, compression } };
  }
  const type = request.headers["content-type"] ?? "";
  if (type.startsWith("multipart/form-data")) {
    await readForm(request, type, fields);
    return { ...split(fields), sql: fields.get("query") ?? "", rows: undefined };
  }
  const body = ENGINE_ONLY.has(encoding)
    ? await unpackedByEngine(request, { path, compression: encoding }, engine)
    : unpacked(request, encoding);
  if (statement !== "") {
    const rest = (await readUpTo(body, STATEMENT_BYTES_MAX)).toString("utf8");
    return { ...split(fields), sql: rest === "" ? statement : `${statement}\n${rest}`, rows: undefined };
  }
  return { ...split(fields), ...(await readBody(body, path)) };
}

/** A body that is the statement, or the statement and its rows. */
async function readBody(body: AsyncIterable<Buffer>, path: string): Promise<Pick<FrontRequest, "sql" | "rows">> {
  const pieces = body[Symbol.asyncIterator]();
  const begun: Buffer[] = [];
  let bytes = 0;
  while (bytes < INSERT_HEAD_BYTES_MAX) {
    const next = await pieces.next();
    if (next.done === true) break;
    begun.push(next.value);
    bytes += next.value.length;
  }
  const start = Buffer.concat(begun);
  // One character for each byte: rows may be anything, and the head's end is a place in bytes.
  const head = insertHeadOf(start.subarray(0, INSERT_HEAD_BYTES_MAX).toString("latin1"));
  const rest: AsyncIterable<Buffer> = { [Symbol.asyncIterator]: () => pieces };
  if (head === undefined) {
    const end = await readUpTo(rest, STATEMENT_BYTES_MAX - start.length);
    return { sql: Buffer.concat([start, end]).toString("utf8"), rows: undefined };
  }
  const sql = start.subarray(0, head.end).toString("utf8");
  const whole = insertHeadOf(sql) ?? head;
  await storeRows(
    (async function* () {
      yield start.subarray(head.end);
      yield* rest;
    })(),
    path,
  );
  return { sql, rows: { head: whole, path, compression: "none" } };
}

function split(fields: ReadonlyMap<string, string>): Pick<FrontRequest, "fields" | "settings" | "params"> {
  const settings = new Map<string, string>();
  const params = new Map<string, string>();
  for (const [name, value] of fields) {
    if (/^param_\w+$/.test(name)) params.set(name.slice("param_".length), value);
    else if (!NO_SETTINGS.has(name)) settings.set(name, value);
  }
  return { fields, settings, params };
}

/** Long parameters come as a form. */
async function readForm(request: IncomingMessage, type: string, fields: Map<string, string>): Promise<void> {
  const body = await readUpTo(request, STATEMENT_BYTES_MAX);
  const form = await new Response(new Uint8Array(body), { headers: { "content-type": type } }).formData();
  for (const [name, value] of form) {
    if (typeof value !== "string") throw notImplemented("external data (a file in the form)");
    fields.set(name, value);
  }
}

function unpacked(request: IncomingMessage, encoding: string): AsyncIterable<Buffer> {
  switch (encoding) {
    case "":
    case "identity":
      return request;
    case "gzip":
      return request.pipe(createGunzip());
    case "deflate":
      return request.pipe(createInflate());
    case "br":
      return request.pipe(createBrotliDecompress());
    case "zstd":
      return request.pipe(createZstdDecompress());
    default:
      throw notImplemented(`Content-Encoding ${encoding} of a statement`);
  }
}

/** clickhouse-connect packs statement and rows together as LZ4 by default. */
async function unpackedByEngine(request: IncomingMessage, file: PackedFile, engine: Engine): Promise<Readable> {
  await storeRows(request, file.path);
  const bytes = await engine.within(NO_SURROUNDINGS, async (session) => session.unpack(file, STATEMENT_BYTES_MAX));
  await rm(file.path);
  return Readable.from([Buffer.from(bytes)]);
}

async function readUpTo(body: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > bytesMax) throw tooLarge(bytesMax);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function storeRows(body: AsyncIterable<Buffer>, path: string): Promise<void> {
  let bytes = 0;
  const counted = Readable.from(
    (async function* () {
      for await (const piece of body) {
        bytes += piece.length;
        if (bytes > ROWS_BYTES_MAX) throw tooLarge(ROWS_BYTES_MAX);
        yield piece;
      }
    })(),
    { objectMode: false },
  );
  await pipeline(counted, createWriteStream(path));
}

function tooLarge(bytesMax: number): FrontError {
  return new FrontError(QUERY_IS_TOO_LARGE, "QUERY_IS_TOO_LARGE", `The body exceeds ${bytesMax} bytes.`);
}
