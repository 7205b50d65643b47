/** Errors as a ClickHouse server tells them: a code, a name, an HTTP status, and the tail of a stream that broke. */

/** Beyond a limit of the front; a server has `max_query_size`. */
export const QUERY_IS_TOO_LARGE = 229;
/** A server's status by code; every other code is 500. Numbers as the engine's `errorCodeToName` has them (26.7). */
const STATUS_OF: ReadonlyMap<number, number> = new Map([
  // What cannot be parsed, does not fit its type, or asks for what cannot be.
  ...[6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72].map((code) => [code, 400] as const),
  ...[117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676].map((code) => [code, 400] as const),
  // What does not exist: functions, names, types, tables, databases, settings, formats, roles.
  ...[46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511].map((code) => [code, 404] as const),
  // Who may not ask.
  ...[192, 193, 497, 512, 516].map((code) => [code, 403] as const),
  [194, 401],
  [159, 408],
  [QUERY_IS_TOO_LARGE, 413],
  [48, 501],
  ...[76, 209, 439].map((code) => [code, 503] as const),
]);

/** A refusal in ClickHouse's words. */
export class FrontError extends Error {
  override readonly name = "FrontError";
  readonly code: number;

  constructor(code: number, name: string, message: string) {
    super(`Code: ${code}. DB::Exception: ${message} (${name})`);
    this.code = code;
  }
}

/** The front does not do this, and a server does. */
export function notImplemented(what: string): FrontError {
  return new FrontError(48, "NOT_IMPLEMENTED", `${what} is not implemented by this front over chDB.`);
}

/** Whatever was thrown, as code, HTTP status and the text a server would send. */
export function describeError(error: unknown, version: string): { code: number; status: number; text: string } {
  const message = error instanceof Error ? error.message : String(error);
  // chDB repeats the beginning when it reads files: `Code: 27. DB::Exception: Code: 27. DB::Exception: …`.
  const once = message.replace(/^(Code: \d+\. DB::Exception: )\1/, "$1").trimEnd();
  const code = Number(/^Code: (\d+)\./.exec(once)?.[1] ?? 1001);
  const text = code === 1001 ? `Code: 1001. DB::Exception: ${once} (STD_EXCEPTION)` : once;
  return { code, status: STATUS_OF.get(code) ?? 500, text: `${text} (version ${version})` };
}

/** What a server from 25.11 on appends when a statement fails after its first rows were sent; clients know the tag. */
export function exceptionTail(text: string, tag: string): Buffer {
  const message = `${text}\n`;
  const length = Buffer.byteLength(message);
  return Buffer.from(`\r\n__exception__\r\n${tag}\r\n${message}${length} ${tag}\r\n__exception__\r\n`);
}
