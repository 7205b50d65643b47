import { deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  CLOUD,
  createTestLog,
  listen,
  LIVE,
  NATIVE,
  openConnection,
  problemOf,
  startGateway,
  type TestLog,
} from "./test-gateway.ts";

/** One gateway for the whole table: what a row leaves behind would show in the rows after it. */
let app: FastifyInstance;
let port: number;
const log: TestLog = createTestLog();
beforeAll(async () => {
  ({ app } = await startGateway({}, { log }));
  port = await listen(app);
  await send({}); // From here on the good credential is known, whatever the bad ones do.
});
afterAll(() => app.close());

type SentHeaders = Readonly<Record<string, string | string[] | undefined>>;
interface Request {
  readonly method?: "GET" | "POST" | "DELETE";
  readonly url?: string;
  readonly headers?: SentHeaders;
  readonly body?: string | Buffer;
}
/** An event, as JSON text, to stand between two good ones; a whole request; or what is written to a connection. */
type Attempt =
  | { readonly event: string; readonly isCloudEvent?: boolean }
  | { readonly request: Request }
  | { readonly wire: string | Buffer };

const good = (id: string): string => JSON.stringify({ ...NATIVE, id });
function send({ method = "POST", url = "/v1/events", headers = {}, body = good("good") }: Request) {
  const all = { authorization: `Bearer ${LIVE}`, "content-type": "application/json", ...headers };
  const kept = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  return app.inject({ method, url, headers: kept, ...(method === "GET" ? {} : { payload: body }) });
}

const event = (text: string): Attempt => ({ event: text });
/** A native event with these members after its first three. */
const native = (members: string): Attempt => ({ event: `{"id":"b","customer":"c","type":"t",${members}}` });
const cloud = (members: Record<string, unknown>): Attempt => ({ event: JSON.stringify({ ...CLOUD, ...members }) });
const body = (bytes: string | Buffer, headers: SentHeaders = {}): Attempt => ({
  request: { body: bytes, headers },
});
const typed = (type: string | undefined, bytes: string | Buffer = good("x")): Attempt =>
  body(bytes, { "content-type": type });
const coded = (coding: string, bytes: string | Buffer): Attempt => body(bytes, { "content-encoding": coding });
const headers = (more: SentHeaders): Attempt => ({ request: { headers: more } });
const binary = (more: SentHeaders, bytes: string | Buffer = "{}"): Attempt =>
  body(bytes, { "ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s", "ce-type": "t", "ce-subject": "c", ...more });
const keyed = (key: string | string[], bytes = '{"customer":"c","type":"t"}'): Attempt =>
  body(bytes, { "idempotency-key": key });
const HEAD = `POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${LIVE}\r\ncontent-type: application/json\r\n`;
const wire = (text: string | Buffer): Attempt => ({ wire: text });

const text = (length: number): string => "x".repeat(length);
const nested = (levels: number, open: string, close: string): string =>
  `${open.repeat(levels)}1${close.repeat(levels)}`;
const properties = (count: number): string => Array.from({ length: count }, (_, i) => `"p${i}":${i}`).join(",");
const many = (count: number): string[] => Array.from({ length: count }, (_, i) => good(`m${i}`));
/** One bit in each byte: compresses to about a seventh, so only the absolute limit can refuse it. */
function coinFlips(length: number): Buffer {
  let state = 42;
  return Buffer.from(
    Array.from({ length }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state >>> 31 === 0 ? 0x61 : 0x62;
    }),
  );
}
const GZIPPED = gzipSync(good("x"));
const NDJSON = "application/x-ndjson";

/** What the row must get: `rejected CODE pointer` for an event, `alone CODE pointer` for a request of one, else `status CODE`. */
test.each<[string, Attempt, string]>([
  // ── one event ──────────────────────────────────────────────────────────────────────────────────────────────────
  ["null", event("null"), "rejected EVENT_NOT_AN_OBJECT "],
  ["true", event("true"), "rejected EVENT_NOT_AN_OBJECT "],
  ["a number", event("7"), "rejected EVENT_NOT_AN_OBJECT "],
  ["1e400", event("1e400"), "rejected EVENT_NOT_AN_OBJECT "],
  ["a text", event('"x"'), "rejected EVENT_NOT_AN_OBJECT "],
  ["a list", event("[[]]"), "rejected EVENT_NOT_AN_OBJECT "],
  ["nothing in it", event("{}"), "rejected FIELD_MISSING /id"],
  ["no customer", event('{"id":"b","type":"t"}'), "rejected FIELD_MISSING /customer"],
  ["no type", event('{"id":"b","customer":"c"}'), "rejected FIELD_MISSING /type"],
  ["id null", event('{"id":null,"customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id a number", event('{"id":5,"customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id a huge number", event('{"id":1e400,"customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id an object", event('{"id":{},"customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id empty", event('{"id":"","customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id too long", event(`{"id":"${text(257)}","customer":"c","type":"t"}`), "rejected FIELD_TOO_LONG /id"],
  ["id with NUL", event('{"id":"a\\u0000","customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["id with half a character", event('{"id":"\\ud800","customer":"c","type":"t"}'), "rejected FIELD_INVALID /id"],
  ["customer a list", event('{"id":"b","customer":["c"],"type":"t"}'), "rejected FIELD_INVALID /customer"],
  ["customer too long", event(`{"id":"b","customer":"${text(257)}","type":"t"}`), "rejected FIELD_TOO_LONG /customer"],
  ["type empty", event('{"id":"b","customer":"c","type":""}'), "rejected FIELD_INVALID /type"],
  ["type too long", event(`{"id":"b","customer":"c","type":"${text(129)}"}`), "rejected FIELD_TOO_LONG /type"],
  ["source null", native('"source":null'), "rejected FIELD_INVALID /source"],
  ["source with a line feed", native('"source":"a\\nb"'), "rejected FIELD_INVALID /source"],
  ["a field too many", native('"mode":"test"'), "rejected FIELD_UNKNOWN /mode"],
  ["a field in capitals", native('"Data":{}'), "rejected FIELD_UNKNOWN /Data"],
  ["a field with a slash", native('"a/b~":1'), "rejected FIELD_UNKNOWN /a~1b~0"],
  ["__proto__ of the event", native('"__proto__":{"mode":"test"}'), "rejected NAME_FORBIDDEN /__proto__"],
  ["constructor of the event", native('"constructor":1'), "rejected NAME_FORBIDDEN /constructor"],
  ["data a number", native('"data":3'), "rejected FIELD_INVALID /data"],
  ["data beyond a double", native('"data":1e400'), "rejected FIELD_INVALID /data"],
  ["data a text", native('"data":"{}"'), "rejected FIELD_INVALID /data"],
  ["data a list", native('"data":[1]'), "rejected FIELD_INVALID /data"],
  ["__proto__ in data", native('"data":{"__proto__":{"a":1}}'), "rejected NAME_FORBIDDEN /data/__proto__"],
  ["__proto__ by escape", native('"data":{"\\u005f_proto__":1}'), "rejected NAME_FORBIDDEN /data/__proto__"],
  ["prototype in a list", native('"data":{"a":[{"prototype":1}]}'), "rejected NAME_FORBIDDEN /data/a/0/prototype"],
  ["objects too deep", native(`"data":${nested(33, '{"a":', "}")}`), `rejected DATA_TOO_DEEP /data${"/a".repeat(32)}`],
  [
    "lists too deep",
    native(`"data":{"a":${nested(400, "[", "]")}}`),
    `rejected DATA_TOO_DEEP /data/a${"/0".repeat(31)}`,
  ],
  ["properties", native(`"data":{${properties(33)}}`), "rejected DATA_TOO_MANY_PROPERTIES /data"],
  ["100,000 keys", native(`"data":{${properties(50_000)}}`), "rejected DATA_TOO_MANY_PROPERTIES /data"],
  [
    "inner properties",
    native(`"data":{"a":[{${properties(16)}},{${properties(16)}}]}`),
    "rejected DATA_TOO_MANY_PROPERTIES /data",
  ],
  ["a huge text", native(`"data":{"v":"${text(65_536)}"}`), "rejected EVENT_TOO_LARGE "],
  ["a huge number", native(`"data":{"v":${"9".repeat(65_536)}}`), "rejected EVENT_TOO_LARGE "],
  ["short lists without end", native(`"data":{"v":[${"[],".repeat(200_000)}1]}`), "rejected EVENT_TOO_LARGE /data"],
  ["time a number", native('"time":1763632800'), "rejected FIELD_INVALID /time"],
  ["time null", native('"time":null'), "rejected FIELD_INVALID /time"],
  ["time empty", native('"time":""'), "rejected TIME_INVALID /time"],
  ["time in words", native('"time":"yesterday"'), "rejected TIME_INVALID /time"],
  ["no such day", native('"time":"2026-02-30T00:00:00Z"'), "rejected TIME_INVALID /time"],
  ["hour 25", native('"time":"2026-11-20T25:00:00Z"'), "rejected TIME_INVALID /time"],
  ["a leap second", native('"time":"2016-12-31T23:59:60Z"'), "rejected TIME_INVALID /time"],
  ["a day alone", native('"time":"2026-11-20"'), "rejected TIME_INVALID /time"],
  ["no zone", native('"time":"2026-11-20T10:00:00"'), "rejected TIME_INVALID /time"],
  ["no such zone", native('"time":"2026-11-20T10:00:00+25:00"'), "rejected TIME_INVALID /time"],
  ["year 0", native('"time":"0000-01-01T00:00:00Z"'), "rejected TIME_INVALID /time"],
  ["year 99", native('"time":"0099-12-31T23:59:59Z"'), "rejected TIME_INVALID /time"],
  ["year 10000", native('"time":"10000-01-01T00:00:00Z"'), "rejected TIME_INVALID /time"],
  ["year 10000 by zone", native('"time":"9999-12-31T23:59:59-01:00"'), "rejected TIME_INVALID /time"],
  [
    "a time of 65 characters",
    native(`"time":"2026-11-20T10:00:00.${"1".repeat(45)}Z"`),
    "rejected FIELD_TOO_LONG /time",
  ],
  ["CloudEvents 0.3", cloud({ specversion: "0.3" }), "rejected FIELD_INVALID /specversion"],
  ["specversion a number", cloud({ specversion: 1 }), "rejected FIELD_INVALID /specversion"],
  ["no subject", cloud({ subject: undefined }), "rejected FIELD_MISSING /subject"],
  ["no source", cloud({ source: undefined }), "rejected FIELD_MISSING /source"],
  ["an extension in capitals", cloud({ Region: "eu" }), "rejected FIELD_UNKNOWN /Region"],
  ["an extension of 65 characters", cloud({ [text(65)]: 1 }), `rejected FIELD_UNKNOWN /${text(65)}`],
  ["an extension that is an object", cloud({ region: {} }), "rejected FIELD_INVALID /region"],
  ["binary data", cloud({ data_base64: "e30=" }), "rejected FIELD_INVALID /data_base64"],
  ["data in XML", cloud({ datacontenttype: "text/xml" }), "rejected FIELD_INVALID /datacontenttype"],
  ["an unknown mode", cloud({ mode: "staging" }), "rejected FIELD_INVALID /mode"],
  ["the other mode", cloud({ mode: "test" }), "rejected MODE_MISMATCH /mode"],
  ["decidedat in words", cloud({ decidedat: "now" }), "rejected TIME_INVALID /decidedat"],
  ["stamped in words", cloud({ stamped: "yes" }), "rejected FIELD_INVALID /stamped"],
  ["a long dataschema", cloud({ dataschema: text(2_049) }), "rejected FIELD_TOO_LONG /dataschema"],
  // ── JSON that is none ──────────────────────────────────────────────────────────────────────────────────────────
  ["empty", body(""), "400 BODY_INVALID"],
  ["blanks", body(" \n\t"), "400 BODY_INVALID"],
  ["half an object", body('{"id":"a"'), "400 BODY_INVALID"],
  ["half a list", body(`[${good("x")},`), "400 BODY_INVALID"],
  ["100,000 open lists", body("[".repeat(100_000)), "400 BODY_INVALID"],
  ["100,000 open objects", body('{"a":'.repeat(100_000)), "400 BODY_INVALID"],
  ["a comma too many", body('{"id":"a",}'), "400 BODY_INVALID"],
  ["single quotes", body("{'id':'a'}"), "400 BODY_INVALID"],
  ["NaN", body('{"id":"a","data":{"v":NaN}}'), "400 BODY_INVALID"],
  ["Infinity", body('{"id":"a","data":{"v":-Infinity}}'), "400 BODY_INVALID"],
  ["a leading zero", body('{"id":"a","data":{"v":01}}'), "400 BODY_INVALID"],
  ["a hexadecimal number", body('{"id":"a","data":{"v":0x1}}'), "400 BODY_INVALID"],
  ["a point without digits", body('{"id":"a","data":{"v":1.}}'), "400 BODY_INVALID"],
  ["a comment", body(`/* */${good("x")}`), "400 BODY_INVALID"],
  ["two values", body(`${good("x")} ${good("y")}`), "400 BODY_INVALID"],
  ["a raw line feed in a text", body('{"id":"a\nb"}'), "400 BODY_INVALID"],
  ["an unknown escape", body('{"id":"\\x41"}'), "400 BODY_INVALID"],
  ["latin-1", body(Buffer.from('{"id":"ü"}', "latin1")), "400 BODY_INVALID"],
  ["UTF-16 with BOM", body(Buffer.from(`\ufeff${good("x")}`, "utf16le")), "400 BODY_INVALID"],
  ["UTF-16 without BOM", body(Buffer.from(good("x"), "utf16le")), "400 BODY_INVALID"],
  ["overlong UTF-8", body(Buffer.from([0x22, 0xc0, 0xaf, 0x22])), "400 BODY_INVALID"],
  ["a surrogate in UTF-8", body(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), "400 BODY_INVALID"],
  ["half a character at the end", body(Buffer.from([0x22, 0xe2, 0x82])), "400 BODY_INVALID"],
  ["two BOMs", body(`\ufeff\ufeff${good("x")}`), "400 BODY_INVALID"],
  // ── the form of the body ───────────────────────────────────────────────────────────────────────────────────────
  ["an empty list", body("[]"), "400 BODY_INVALID"],
  ["too many events", body(`[${many(501).join(",")}]`), "413 TOO_MANY_EVENTS"],
  ["300,000 empty objects", body(`[${"{},".repeat(300_000)}{}]`), "413 TOO_MANY_EVENTS"],
  ["a byte too many", body(good("x").padEnd(1_000_001)), "413 BODY_TOO_LARGE"],
  ["no media type", typed(undefined), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["a form", typed("application/x-www-form-urlencoded", "id=1"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["text", typed("text/plain"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["XML", typed("application/cloudevents+xml", "<a/>"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["several parts", typed("multipart/form-data; boundary=x", "--x--"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["no type at all", typed("json"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["UTF-16 by charset", typed("application/json; charset=utf-16"), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["latin-1 by charset", typed('application/json; charset="ISO-8859-1"'), "415 CONTENT_TYPE_UNSUPPORTED"],
  ["one event as a batch", typed("application/cloudevents-batch+json", JSON.stringify(CLOUD)), "400 BODY_INVALID"],
  ["an empty batch", typed("application/cloudevents-batch+json", "[]"), "400 BODY_INVALID"],
  ["a list as one event", typed("application/cloudevents+json", JSON.stringify([CLOUD])), "400 BODY_INVALID"],
  ["no lines", typed(NDJSON, ""), "400 BODY_INVALID"],
  ["blank lines", typed(NDJSON, "\n\r\n \n"), "400 BODY_INVALID"],
  ["too many lines", typed(NDJSON, many(501).join("\n")), "413 TOO_MANY_EVENTS"],
  ["a million line feeds and one more", typed(NDJSON, "\n".repeat(1_000_001)), "413 BODY_TOO_LARGE"],
  // ── compression ────────────────────────────────────────────────────────────────────────────────────────────────
  ["brotli", coded("br", "x"), "415 CONTENT_ENCODING_UNSUPPORTED"],
  ["zstd", coded("zstd", "x"), "415 CONTENT_ENCODING_UNSUPPORTED"],
  ["gzip twice", coded("gzip, gzip", gzipSync(GZIPPED)), "415 CONTENT_ENCODING_UNSUPPORTED"],
  ["gzip that is plain", coded("gzip", good("x")), "400 BODY_INVALID"],
  ["gzip of nothing at all", coded("gzip", ""), "400 BODY_INVALID"],
  ["gzip cut in the middle", coded("gzip", GZIPPED.subarray(0, 30)), "400 BODY_INVALID"],
  ["gzip without its checksum", coded("gzip", GZIPPED.subarray(0, -8)), "400 BODY_INVALID"],
  [
    "gzip with a wrong checksum",
    coded("gzip", Buffer.concat([GZIPPED.subarray(0, -8), Buffer.alloc(8)])),
    "400 BODY_INVALID",
  ],
  ["gzip and more", coded("gzip", Buffer.concat([GZIPPED, Buffer.from("more")])), "400 BODY_INVALID"],
  ["gzip in gzip", coded("gzip", gzipSync(GZIPPED)), "400 BODY_INVALID"],
  ["gzip as deflate", coded("deflate", GZIPPED), "400 BODY_INVALID"],
  ["deflate without its frame", coded("deflate", deflateRawSync(good("x"))), "400 BODY_INVALID"],
  ["deflate cut", coded("deflate", deflateSync(good("x")).subarray(0, -1)), "400 BODY_INVALID"],
  ["a gzip bomb", coded("gzip", gzipSync(Buffer.alloc(100_000_000))), "413 BODY_TOO_LARGE"],
  ["a deflate bomb", coded("deflate", deflateSync(Buffer.alloc(100_000_000))), "413 BODY_TOO_LARGE"],
  ["a small bomb", coded("gzip", gzipSync(good("x").padEnd(300_000))), "413 BODY_TOO_LARGE"],
  [
    "a bomb in two parts",
    coded("gzip", Buffer.concat([GZIPPED, gzipSync(Buffer.alloc(9_000_000))])),
    "413 BODY_TOO_LARGE",
  ],
  ["honestly too much", coded("gzip", gzipSync(coinFlips(5_000_001))), "413 BODY_TOO_LARGE"],
  // ── who sends it, and under which key ──────────────────────────────────────────────────────────────────────────
  ["no credential", headers({ authorization: undefined }), "401 AUTH_REQUIRED"],
  ["an empty credential", headers({ authorization: "Bearer " }), "401 AUTH_REQUIRED"],
  ["another scheme", headers({ authorization: "Basic dXNlcjpwYXNz" }), "401 AUTH_REQUIRED"],
  ["two credentials in one", headers({ authorization: `Bearer ${LIVE} ${LIVE}` }), "401 AUTH_REQUIRED"],
  ["an unknown credential", headers({ authorization: "Bearer svc_live_th_unknown_unknown" }), "401 AUTH_INVALID"],
  ["a credential in another case", headers({ authorization: `Bearer ${LIVE.toUpperCase()}` }), "401 AUTH_INVALID"],
  ["an unknown key", headers({ authorization: undefined, "x-api-key": "x" }), "401 AUTH_INVALID"],
  ["an empty Idempotency-Key", keyed(""), "400 IDEMPOTENCY_KEY_INVALID"],
  ["a key of empty quotes", keyed('""'), "400 IDEMPOTENCY_KEY_INVALID"],
  ["a key with half its quotes", keyed('"abc'), "400 IDEMPOTENCY_KEY_INVALID"],
  ["a key of two words", keyed("a b"), "400 IDEMPOTENCY_KEY_INVALID"],
  ["a key twice", keyed(["a", "a"]), "400 IDEMPOTENCY_KEY_INVALID"],
  ["a key beside another id", keyed("a", good("b")), "422 IDEMPOTENCY_KEY_MISMATCH"],
  ["a key beside a number", keyed("5", '{"id":5,"customer":"c","type":"t"}'), "422 IDEMPOTENCY_KEY_MISMATCH"],
  ["a key for two events", keyed("a", `[${good("a")},${good("a")}]`), "422 IDEMPOTENCY_KEY_MISMATCH"],
  ["a key that is too long", keyed(text(257)), "alone FIELD_TOO_LONG /id"],
  // ── binary mode ────────────────────────────────────────────────────────────────────────────────────────────────
  ["ce-specversion missing", binary({ "ce-specversion": undefined }), "alone FIELD_MISSING /specversion"],
  ["ce-specversion 0.3", binary({ "ce-specversion": "0.3" }), "alone FIELD_INVALID /specversion"],
  ["ce-subject missing", binary({ "ce-subject": undefined }), "alone FIELD_MISSING /subject"],
  ["a percent sign alone", binary({ "ce-subject": "100%" }), "alone FIELD_INVALID /subject"],
  ["overlong UTF-8 in a header", binary({ "ce-id": "%C0%A0" }), "alone FIELD_INVALID /id"],
  ["raw letters beyond ASCII", binary({ "ce-id": "\u00fc" }), "alone FIELD_INVALID /id"],
  ["a header twice", binary({ "ce-id": ["a", "b"] }), "alone FIELD_INVALID /id"],
  ["data in a header", binary({ "ce-data": "{}" }), "alone FIELD_UNKNOWN /data"],
  [
    "the data's type in a header of its own",
    binary({ "ce-datacontenttype": "text/xml" }),
    "alone FIELD_UNKNOWN /datacontenttype",
  ],
  ["__proto__ in a header", binary({ "ce-__proto__": "1" }), "alone NAME_FORBIDDEN /__proto__"],
  ["an encoded NUL", binary({ "ce-id": "a%00" }), "alone FIELD_INVALID /id"],
  ["data that is a list", binary({}, "[1]"), "alone FIELD_INVALID /data"],
  ["data that is no JSON", binary({}, "{"), "400 BODY_INVALID"],
  ["data in XML by Content-Type", binary({ "content-type": "text/xml" }, "<a/>"), "415 CONTENT_TYPE_UNSUPPORTED"],
  // ── paths, methods and places ──────────────────────────────────────────────────────────────────────────────────
  ["GET", { request: { method: "GET" } }, "405 METHOD_NOT_ALLOWED"],
  ["DELETE", { request: { method: "DELETE" } }, "405 METHOD_NOT_ALLOWED"],
  ["a slash at the end", { request: { url: "/v1/events/" } }, "404 NOT_FOUND"],
  ["capitals", { request: { url: "/v1/Events" } }, "404 NOT_FOUND"],
  [
    "dots by percent",
    wire("GET /v1/usage/%2e%2e/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
    "404 NOT_FOUND",
  ],
  ["a path that cannot be decoded", { request: { url: "/v1/%zz" } }, "400 REQUEST_INVALID"],
  [
    "metrics through a proxy",
    { request: { method: "GET", url: "/metrics", headers: { "x-forwarded-for": "1.2.3.4" } } },
    "403 LOOPBACK_ONLY",
  ],
  [
    "the page under another name",
    { request: { method: "GET", url: "/", headers: { host: "evil.example" } } },
    "403 LOOPBACK_ONLY",
  ],
  // ── what no HTTP client sends ──────────────────────────────────────────────────────────────────────────────────
  ["no HTTP", wire("hello\r\n\r\n"), "400 REQUEST_INVALID"],
  ["TLS", wire(Buffer.from("16030100a5010000a1", "hex")), "400 REQUEST_INVALID"],
  ["headers of 20 kB", wire(`${HEAD}x: ${text(20_000)}\r\n\r\n`), "431 REQUEST_INVALID"],
  ["two lengths", wire(`${HEAD}content-length: 1\r\ncontent-length: 2\r\n\r\n1`), "400 REQUEST_INVALID"],
  ["a negative length", wire(`${HEAD}content-length: -1\r\n\r\n`), "400 REQUEST_INVALID"],
  ["a length in words", wire(`${HEAD}content-length: ten\r\n\r\n`), "400 REQUEST_INVALID"],
  [
    "a length and chunks",
    wire(`${HEAD}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n`),
    "400 REQUEST_INVALID",
  ],
  ["chunks of garbage", wire(`${HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`), "400 REQUEST_INVALID"],
  [
    "a chunk longer than said",
    wire(`${HEAD}transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n`),
    "400 REQUEST_INVALID",
  ],
  ["a length beyond everything", wire(`${HEAD}content-length: 99999999999\r\n\r\n`), "413 BODY_TOO_LARGE"],
  ["NUL in a header", wire(`${HEAD}x: a\0b\r\n\r\n`), "400 REQUEST_INVALID"],
  ["a body cut short", wire(`${HEAD}content-length: 500\r\n\r\n${good("cut")}`), "400 REQUEST_INVALID"],
  [
    "chunks cut short",
    wire(`${HEAD}transfer-encoding: chunked\r\n\r\n${good("cut").length.toString(16)}\r\n${good("cut")}\r\n`),
    "400 REQUEST_INVALID",
  ],
])("%s", async (name, attempt, expected) => {
  const before = log.records.length;
  expect(await outcomeOf(attempt, expected)).toBe(expected);
  // Nothing of the bad one was stored, and the next request is as if it had not been.
  const next = await send({ body: good(`after ${name}`) });
  expect(next.json()).toMatchObject({ accepted: 1, rejected: 0 });
  const stored = log.records.slice(before).map(({ key }) => key?.toString().split("/api/")[1]);
  expect(stored.filter((id) => id !== "left" && id !== "right")).toEqual([`after ${name}`]);
});

async function outcomeOf(attempt: Attempt, expected: string): Promise<string> {
  if ("wire" in attempt) return overWire(attempt.wire);
  if ("event" in attempt) return betweenNeighbours(attempt.event);
  const answer = await send(attempt.request);
  const problem = problemOf(answer);
  if (!expected.startsWith("alone")) return problem;
  expect(problem).toBe("400 EVENTS_REJECTED");
  return `alone ${rejectionOf(answer.json(), 0)}`;
}

/** In a list, as a line, and alone: the neighbours are accepted each time, and the reason is the same. */
async function betweenNeighbours(bad: string): Promise<string> {
  const list = await send({ body: `[${good("left")},${bad},${good("right")}]` });
  expect([list.statusCode, list.json().accepted, list.json().rejected]).toEqual([202, 2, 1]);
  expect(list.json().results.map(({ status }: { status: string }) => status)).toEqual([
    "accepted",
    "rejected",
    "accepted",
  ]);
  const lines = await send({
    headers: { "content-type": NDJSON },
    body: [good("left"), bad, good("right")].join("\n"),
  });
  expect([lines.statusCode, lines.json().accepted, lines.json().rejected]).toEqual([202, 2, 1]);
  const reason = rejectionOf(list.json(), 1);
  // A line is refused by its length before anything is looked for in it.
  expect(rejectionOf(lines.json(), 1)).toBe(bad.length > 65_536 ? "EVENT_TOO_LARGE " : reason);
  const alone = await send({ body: bad.startsWith("[") ? `[${bad}]` : bad });
  expect(problemOf(alone)).toBe("400 EVENTS_REJECTED");
  expect(rejectionOf(alone.json(), 0)).toBe(reason);
  return `rejected ${reason}`;
}

function rejectionOf(answer: { results: Record<string, unknown>[] }, index: number): string {
  const result = answer.results[index] ?? {};
  expect(result).toMatchObject({ index, status: "rejected", message: expect.stringMatching(/\w/) });
  return `${String(result["code"])} ${String(result["pointer"])}`;
}

/** Writes bytes to a bare connection, ends our side and reads to the end of the other. */
async function overWire(bytes: string | Buffer): Promise<string> {
  const { socket, received, ended } = await openConnection(port);
  socket.end(bytes);
  await ended;
  const answers = received().split(/(?=HTTP\/1\.1 )/);
  // A second answer would be read as the answer to the connection's next request.
  expect(answers.length).toBe(1);
  const [head = "", document = ""] = received().split("\r\n\r\n");
  const { status, code } = JSON.parse(document) as { status: number; code: string };
  expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  return `${status} ${code}`;
}
