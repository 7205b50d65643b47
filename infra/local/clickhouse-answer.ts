/** How the front answers: headers, rows as they come, and an error wherever it strikes. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { createBrotliCompress, createDeflate, createGzip, createZstdCompress } from "node:zlib";
import type { Outcome } from "./clickhouse-engine.ts";
import { exceptionTail } from "./clickhouse-error.ts";
import { type Breakage, contentTypeOf } from "./clickhouse-statement.ts";

/** A client that still reads when the connection ends drops what it has not read, and the tail with it. */
const TAIL_PAUSE_MS = 250;

/** One answer in the making. */
export interface Answer {
  readonly response: ServerResponse;
  /** Announced in a header, found again before and after the text of an error among the rows. */
  readonly exceptionTag: string;
  /** Undefined: as it is. */
  readonly encoding: string | undefined;
}

/** Sets what every answer carries. */
export function beginAnswer(
  request: IncomingMessage,
  response: ServerResponse,
  facts: { queryId: string; timezone: string; compresses: boolean },
): Answer {
  const exceptionTag = randomBytes(8).toString("hex");
  response.setHeader("X-ClickHouse-Query-Id", facts.queryId);
  response.setHeader("X-ClickHouse-Timezone", facts.timezone);
  response.setHeader("X-ClickHouse-Server-Display-Name", "chdb-front");
  response.setHeader("X-ClickHouse-Exception-Tag", exceptionTag);
  const accepted = (request.headers["accept-encoding"] ?? "").split(/\s*,\s*/);
  const encoding = facts.compresses
    ? ["gzip", "zstd", "br", "deflate"].find((name) => accepted.includes(name))
    : undefined;
  return { response, exceptionTag, encoding };
}

/** An answer that is whole: its summary is known before its first byte. */
export async function sendWhole(
  answer: Answer,
  { outcome, format, isInsert }: { outcome: Outcome; format: string; isInsert: boolean },
): Promise<void> {
  const { response } = answer;
  const written = isInsert ? outcome.rows : 0;
  const read = { rows: String(outcome.rows), bytes: String(outcome.rowBytes) };
  response.setHeader(
    "X-ClickHouse-Summary",
    JSON.stringify({
      read_rows: read.rows,
      read_bytes: read.bytes,
      written_rows: String(written),
      written_bytes: isInsert ? read.bytes : "0",
      total_rows_to_read: "0",
      result_rows: read.rows,
      result_bytes: String(outcome.bytes.length),
      elapsed_ns: String(Math.round(outcome.elapsedSeconds * 1e9)),
    }),
  );
  const body = begin(answer, outcome.bytes.length > 0 ? format : undefined);
  await body.write(outcome.bytes);
  await body.end();
}

/**
 * Rows as they come. The first piece is awaited before the status is sent, so that what fails at once is an error like
 * any other; what fails later ends the body with the exception's tail and without its last chunk, as a server does.
 */
export async function sendStream(
  answer: Answer,
  {
    pieces,
    format,
    describe,
  }: { pieces: AsyncIterable<Uint8Array>; format: string; describe: (error: unknown) => string },
): Promise<void> {
  const iterator = pieces[Symbol.asyncIterator]();
  let next = await iterator.next();
  const body = begin(answer, format);
  try {
    while (next.done !== true) {
      await body.write(next.value);
      next = await iterator.next();
    }
  } catch (error) {
    await body.breakOff(exceptionTail(describe(error), answer.exceptionTag));
    return;
  } finally {
    await iterator.return?.();
  }
  await body.end();
}

/** Does to an answer what the statement asked for: an error in the middle, or a connection that is gone. */
export async function sendBroken(
  answer: Answer,
  broken: { bytes: Uint8Array; format: string; breakage: Breakage; text: string },
): Promise<void> {
  const body = begin(answer, broken.format);
  await body.write(broken.bytes.subarray(0, broken.breakage.afterBytes));
  const isCut = broken.breakage.how === "cut";
  await body.breakOff(isCut ? Buffer.alloc(0) : exceptionTail(broken.text, answer.exceptionTag));
}

/** The body of an answer whose headers are sent. */
interface Body {
  /** Resolves when there is room for more; rejects when the client is gone. */
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
  /** Sends the last bytes and closes without the empty chunk that would say the answer is whole. */
  breakOff(tail: Uint8Array): Promise<void>;
}

function begin({ response, encoding }: Answer, format: string | undefined): Body {
  if (format !== undefined) {
    response.setHeader("X-ClickHouse-Format", format);
    response.setHeader("Content-Type", contentTypeOf(format));
  }
  if (encoding !== undefined) response.setHeader("Content-Encoding", encoding);
  response.writeHead(200);
  const packer = encoding === undefined ? undefined : packerOf(encoding);
  packer?.pipe(response, { end: false });
  const sink: Writable = packer ?? response;
  /** Everything packed has reached the response. */
  const flush = async (): Promise<void> => {
    if (packer === undefined) return;
    packer.end();
    await once(packer, "end", { signal: signalOfEnd(response) });
  };
  return {
    async write(bytes) {
      if (response.destroyed) throw new Error("the client is gone");
      if (bytes.length > 0 && !sink.write(bytes)) await once(sink, "drain", { signal: signalOfEnd(response) });
    },
    async end() {
      await flush();
      response.end();
    },
    async breakOff(tail) {
      if (response.destroyed) return;
      if (tail.length > 0) sink.write(tail);
      await flush();
      if (tail.length > 0) await sleep(TAIL_PAUSE_MS);
      response.socket?.end();
    },
  };
}

/** Aborts when the connection is gone: nobody drains it any more. */
function signalOfEnd(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once("close", () => gone.abort(new Error("the client is gone")));
  return gone.signal;
}

function packerOf(encoding: string): ReturnType<typeof createGzip> {
  switch (encoding) {
    case "zstd":
      return createZstdCompress();
    case "br":
      return createBrotliCompress();
    case "deflate":
      return createDeflate();
    default:
      return createGzip();
  }
}
