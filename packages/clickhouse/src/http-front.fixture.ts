/**
 * Run by server.contract.test.ts as a process of its own: the ClickHouse engine (chDB) behind as much of the server's
 * HTTP interface as a client needs, for there is no server to be had without Docker. Settings of a request become SET
 * on a session of its own, which shows that the engine knows them; the port it listens on is its first line.
 */
import { createServer, type IncomingMessage } from "node:http";
import { buffer } from "node:stream/consumers";
import { Session } from "chdb";

/** Parameters of a request that are no settings of the engine. */
const HTTP_ONLY = new Set(["query", "query_id", "database", "session_id", "default_format", "wait_end_of_query"]);
const [, , path = ""] = process.argv;
/** Keeps the engine open between requests. */
const base = new Session(path);

async function answer(request: IncomingMessage): Promise<Uint8Array> {
  const url = new URL(request.url ?? "/", "http://front");
  const { fields, body } = await fieldsOf(request, url);
  const inUrl = fields.get("query");
  const settings: string[] = [];
  const params: Record<string, string> = {};
  for (const [name, value] of fields) {
    if (name.startsWith("param_")) params[name.slice("param_".length)] = value;
    else if (!HTTP_ONLY.has(name)) settings.push(`${name} = '${value.replaceAll("'", "''")}'`);
  }
  const session = new Session(path);
  try {
    if (settings.length > 0) await session.queryAsync(`SET ${settings.join(", ")}`);
    if (inUrl !== undefined && body.length > 0) return await insert(session, inUrl, body);
    const sql = inUrl ?? body.toString("utf8");
    const result =
      Object.keys(params).length === 0
        ? await session.queryAsync(sql)
        : await session.queryBindAsync(sql, plainParams(sql, params));
    return result.bytes();
  } finally {
    session.close();
  }
}

/** Fields of the URL and, where parameters are long, of a form in the body. */
async function fieldsOf(request: IncomingMessage, url: URL): Promise<{ fields: Map<string, string>; body: Buffer }> {
  const fields = new Map(url.searchParams);
  const body = await buffer(request);
  const type = request.headers["content-type"] ?? "";
  if (!type.startsWith("multipart/form-data")) return { fields, body };
  const form = await new Response(new Uint8Array(body), { headers: { "content-type": type } }).formData();
  for (const [name, value] of form) if (typeof value === "string") fields.set(name, value);
  return { fields, body: Buffer.alloc(0) };
}

/**
 * A server reads `param_…` as a TabSeparated field, and the elements of an array as quoted text. chDB escapes what it is
 * given, so the escapes come off first.
 */
function plainParams(sql: string, params: Readonly<Record<string, string>>): Record<string, string | string[]> {
  const isArray = (name: string): boolean => sql.includes(`{${name}:Array(`);
  return Object.fromEntries(
    Object.entries(params).map(([name, value]) => [
      name,
      isArray(name)
        ? Array.from(value.matchAll(/'((?:[^'\\]|\\.)*)'/gs), ([, text = ""]) => unescaped(text))
        : unescaped(value),
    ]),
  );
}

const ESCAPES: Readonly<Record<string, string>> = { t: "\t", n: "\n", r: "\r", "0": "\0", b: "\b", f: "\f" };

function unescaped(text: string): string {
  return text.replaceAll(/\\(.)/gs, (_, letter: string) => ESCAPES[letter] ?? letter);
}

async function insert(session: Session, sql: string, values: Buffer): Promise<Uint8Array> {
  const [, table = "", columns = ""] =
    /^INSERT INTO (\w+) \(([^)]*)\) FORMAT JSONCompactEachRow$/.exec(sql.trim()) ?? [];
  await session.insert({ table, columns: columns.split(", "), values, format: "JSONCompactEachRow" });
  return new Uint8Array();
}

const server = createServer((request, response) => {
  answer(request).then(
    (bytes) => response.writeHead(200).end(bytes),
    (error: unknown) => response.writeHead(500).end(error instanceof Error ? error.message : "failed"),
  );
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  process.stdout.write(`${typeof address === "object" && address !== null ? address.port : 0}\n`);
});
process.once("SIGTERM", () => {
  base.close();
  process.exit(0);
});
