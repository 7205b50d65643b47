/** One request of ClickHouse's HTTP interface: as much of it as a reader needs, everything else refused. */
import type { IncomingMessage } from "node:http";

/** What was asked, or a refusal in ClickHouse's words. */
export type AnalystRequest =
  | {
      readonly kind: "query";
      readonly sql: string;
      readonly params: ReadonlyMap<string, string>;
      readonly defaultFormat: string;
      readonly queryId: string | undefined;
    }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/** An exception as ClickHouse would answer it. */
export interface Refusal {
  readonly status: number;
  readonly code: number;
  readonly name: string;
  readonly text: string;
}

/** A statement of 65,536 characters of four bytes, or its parameters. */
const BODY_BYTES_MAX = 262_144;
const DEFAULT_FORMAT = "TabSeparated";

/** What clients send along and what changes nothing here: how to wait, to compress, to report progress, to be found again. */
const WITHOUT_EFFECT = new Set([
  "buffer_size",
  "cancel_http_readonly_queries_on_client_close",
  "client_protocol_version",
  "enable_http_compression",
  "http_headers_progress_interval_ms",
  "query_id",
  "quota_key",
  "send_progress_in_http_headers",
  "session_check",
  "session_id",
  "session_timeout",
  "wait_end_of_query",
]);

/**
 * The credential of a request, from `Authorization` (Basic: the password; Bearer) or `X-ClickHouse-Key`; never from the URL, which
 * proxies and histories keep. The user's name may be any.
 */
export function credentialOf({ headers }: IncomingMessage): string | null {
  const [, scheme = "", text = ""] = /^(basic|bearer) (\S{1,1024})$/i.exec(headers.authorization ?? "") ?? [];
  if (scheme.toLowerCase() === "bearer") return text;
  if (scheme !== "")
    return Buffer.from(text, "base64")
      .toString("utf8")
      .replace(/^[^:]*:/, "");
  const key = headers["x-clickhouse-key"];
  return typeof key === "string" ? key : null;
}

/** Reads and checks the request. The body is bounded; settings are refused but those without effect here. */
export async function readRequest(request: IncomingMessage, url: URL): Promise<AnalystRequest> {
  const body = await bodyOf(request);
  if (body === null)
    return refused({
      status: 413,
      code: 307,
      name: "TOO_MANY_BYTES",
      text: `a body has at most ${BODY_BYTES_MAX} bytes`,
    });
  const fields = [...url.searchParams];
  const type = request.headers["content-type"] ?? "";
  if (request.headers["content-encoding"] !== undefined)
    return refused({ status: 415, code: 48, name: "NOT_IMPLEMENTED", text: "send the statement uncompressed" });
  let sql = "";
  try {
    if (type.startsWith("multipart/form-data")) fields.push(...(await formFieldsOf(body, type)));
    else sql = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    return refused({
      status: 400,
      code: 36,
      name: "BAD_ARGUMENTS",
      text: "the body is no UTF-8 text or no form of texts",
    });
  }
  return queryOf({ sql, fields, headers: request.headers });
}

function queryOf(input: {
  sql: string;
  fields: readonly (readonly [string, string])[];
  headers: IncomingMessage["headers"];
}): AnalystRequest {
  const statements = [input.sql];
  const params = new Map<string, string>();
  let format = input.headers["x-clickhouse-format"];
  let queryId: string | undefined;
  for (const [name, value] of input.fields) {
    if (name === "query") statements.push(value);
    else if (name.startsWith("param_")) params.set(name.slice("param_".length), value);
    else if (name === "default_format") format = value;
    else if (name === "query_id") queryId = value;
    else if (name === "user" || name === "password")
      return refused({
        status: 401,
        code: 516,
        name: "AUTHENTICATION_FAILED",
        text: "credentials belong in a header, not in the URL",
      });
    else if (name === "database" ? !["", "default"].includes(value) : !WITHOUT_EFFECT.has(name))
      return refused({
        status: 403,
        code: 164,
        name: "READONLY",
        text: `Cannot modify '${name.slice(0, 64)}' here: no setting can be changed`,
      });
  }
  const [sql = "", ...others] = statements.filter((statement) => statement.trim() !== "");
  if (sql === "")
    return refused({ status: 400, code: 62, name: "SYNTAX_ERROR", text: "send one SELECT, as the body or as ?query=" });
  if (others.length > 0)
    return refused({
      status: 400,
      code: 62,
      name: "SYNTAX_ERROR",
      text: "the statement came twice: as the body and as ?query=",
    });
  return {
    kind: "query",
    sql,
    params,
    defaultFormat: typeof format === "string" ? format : DEFAULT_FORMAT,
    queryId: /^[\w.:-]{1,64}$/.test(queryId ?? "") ? queryId : undefined,
  };
}

function refused(refusal: Refusal): AnalystRequest {
  return { kind: "refused", refusal };
}

/** null: more than {@link BODY_BYTES_MAX}; the rest is not read. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bodyBytes = 0;
  for await (const chunk of request) {
    const bytes = chunk as Buffer;
    bodyBytes += bytes.length;
    if (bodyBytes > BODY_BYTES_MAX) return null;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}

async function formFieldsOf(body: Buffer, type: string): Promise<[string, string][]> {
  const form = await new Response(new Uint8Array(body), { headers: { "content-type": type } }).formData();
  return [...form].map(([name, value]) => {
    if (typeof value !== "string") throw new TypeError("a file");
    return [name, value];
  });
}
