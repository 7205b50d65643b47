/** JSON without silent damage: numbers that a double cannot hold are kept as their own text. */
import { assert } from "./assert.ts";

/** A parsed JSON object; {@link isJsonObject} tells one. */
export type JsonObject = { readonly [name: string]: unknown };

/** A number token kept as text, printed verbatim by JSON.stringify. Made only by {@link parseJson}. */
interface RawNumber {
  readonly rawJSON: string;
}

// ES2025 "JSON.parse source text access"; in V8 since 11.4, not in TypeScript's es2024 library.
const exactJson = JSON as unknown as {
  rawJSON(text: string): RawNumber;
  isRawJSON(value: unknown): value is RawNumber;
  parse(text: string, reviver: (key: string, value: unknown, context: { source?: string }) => unknown): unknown;
};

/**
 * A cheap guard: only after `:`, `,`, `[` or blank stands a number, and only 16 digits or dots in a row, or an exponent of three
 * digits, can be more than a double holds. A hit inside a string costs time, never correctness.
 */
const MAYBE_INEXACT = /[:,[\s]-?(?:[0-9.]{16}|[0-9.]{1,15}[eE][+-]?[0-9]{3})/;
/** A text that is nothing but a number. Apart, because `^` in the guard doubles its cost on every record. */
const IS_NUMBER = /^-?[0-9]/;

/** A reviver recurses; V8's default stack held 2,000 levels and not 3,000 (measured, Node 24.21). */
const REVIVED_LEVELS_MAX = 500;

/**
 * JSON.parse, but a number that does not survive the way through a double (its shortest text denotes another number, as for
 * 9007199254740993 or 1e400) becomes a raw number: {@link isRawNumber} is true for it, and JSON.stringify prints its token
 * unchanged. Everything else is what JSON.parse gives.
 * @throws {SyntaxError} when the text is no JSON, or holds such a number and more than 500 levels.
 */
export function parseJson(text: string): unknown {
  const plain: unknown = JSON.parse(text);
  if (!MAYBE_INEXACT.test(text) && !IS_NUMBER.test(text)) return plain;
  if (isDeeperThan(plain, REVIVED_LEVELS_MAX)) throw new SyntaxError(`JSON nested over ${REVIVED_LEVELS_MAX} levels`);
  return exactJson.parse(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined && !isExactToken(source, value)
      ? exactJson.rawJSON(source)
      : value,
  );
}

function isDeeperThan(root: unknown, levelsMax: number): boolean {
  let level = [root];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > levelsMax) return true;
    level = level.flatMap((value) => (typeof value === "object" && value !== null ? Object.values(value) : []));
  }
  return false;
}

function isExactToken(token: string, value: number): boolean {
  return Number.isFinite(value) && normalNumber(token) === normalNumber(String(value));
}

/** A number kept as text by {@link parseJson}: no double equals it. */
export function isRawNumber(value: unknown): value is RawNumber {
  return exactJson.isRawJSON(value);
}

/** A plain JSON object: neither null, array nor raw number. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isRawNumber(value);
}

/** The text a scalar is compared by and stored as in a dimension; null for absent, null, objects and arrays. */
export function textOfJson(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (typeof value === "number") return decimalTextOf(String(value));
  if (typeof value === "boolean") return value ? "true" : "false";
  return isRawNumber(value) ? decimalTextOf(value.rawJSON) : null;
}

/** Zeros that {@link decimalTextOf} writes out for an exponent; a double needs at most 323. */
const WRITTEN_ZEROS_MAX = 400;
/** A JSON number token, or the text of a double. */
const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

/** Sign, digits without outer zeros, and the power of ten of the last digit; zero has no digits. Null for NaN and infinities. */
function partsOfNumber(text: string): { sign: string; digits: string; exponent: number } | null {
  const match = NUMBER.exec(text);
  if (match === null) return null;
  const [, sign = "", integer = "", fraction = "", exponent = "0"] = match;
  const all = integer + fraction;
  // Loops, because a pattern for trailing zeros takes quadratic time on a long row of them.
  let end = all.length;
  while (end > 0 && all[end - 1] === "0") end -= 1;
  let start = 0;
  while (start < end && all[start] === "0") start += 1;
  if (start === end) return { sign: "", digits: "", exponent: 0 };
  return { sign, digits: all.slice(start, end), exponent: Number(exponent) - fraction.length + (all.length - end) };
}

/** One text for each number, however it is written: 1200, 12e2 and 1.2e3 are `12e2`. */
function normalNumber(text: string): string {
  const parts = partsOfNumber(text);
  return parts === null ? text : `${parts.sign}${parts.digits || "0"}e${parts.exponent}`;
}

/** Decimal text without exponent, outer zeros or -0, so 1e21 and 1000000000000000000000 are one dimension value. */
function decimalTextOf(text: string): string {
  const parts = partsOfNumber(text);
  if (parts === null) return text;
  const { sign, digits, exponent } = parts;
  if (digits === "") return "0";
  if (Math.abs(exponent) > WRITTEN_ZEROS_MAX + digits.length) return normalNumber(text);
  if (exponent >= 0) return `${sign}${digits}${"0".repeat(exponent)}`;
  const padded = digits.padStart(1 - exponent, "0");
  return `${sign}${padded.slice(0, exponent)}.${padded.slice(exponent)}`;
}

/**
 * JSON text with sorted keys at every depth, and one text for each number: equal for payloads that mean the same, whatever their
 * key order. Properties that JSON.stringify leaves out are left out. Recurses: the caller bounds the depth.
 */
export function canonicalJson(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (typeof value === "number" && Number.isFinite(value)) return String(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (isRawNumber(value)) return normalNumber(value.rawJSON);
  if (!isJsonObject(value)) return JSON.stringify(value) ?? "null";
  const names = sorted(Object.keys(value));
  let text = "";
  for (const name of names) {
    const member = value[name];
    if (member !== undefined) text += `${text === "" ? "{" : ","}${quoted(name)}:${canonicalJson(member)}`;
  }
  return text === "" ? "{}" : `${text}}`;
}

/** By insertion, in place: for the few names of a usage event the general sort costs twice as much. */
function sorted(names: string[]): string[] {
  if (names.length > INSERTED_NAMES_MAX) return names.sort();
  for (let i = 1; i < names.length; i += 1) {
    const name = names[i] as string;
    let at = i;
    for (; at > 0 && (names[at - 1] as string) > name; at -= 1) names[at] = names[at - 1] as string;
    names[at] = name;
  }
  return names;
}

const INSERTED_NAMES_MAX = 32;

/** JSON.stringify of a text; beyond this length its native loop is faster than ours. */
const PLAIN_CHARACTERS_MAX = 64;

function quoted(text: string): string {
  if (text.length > PLAIN_CHARACTERS_MAX) return JSON.stringify(text);
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    // Controls, the quote, the backslash and surrogates (a lone one is escaped) are JSON.stringify's.
    if (code < 0x20 || code === 0x22 || code === 0x5c || (code >= 0xd800 && code <= 0xdfff))
      return JSON.stringify(text);
  }
  return `"${text}"`;
}

/**
 * Compiles a JSON pointer into a reader. `""` is the whole value; array steps are decimal indices. Absent is undefined.
 * @throws {InvariantError} when the pointer neither is empty nor begins with a slash.
 * @see https://www.rfc-editor.org/rfc/rfc6901 (read 2026-11)
 */
export function compilePointer(pointer: string): (root: unknown) => unknown {
  assert(pointer === "" || pointer.startsWith("/"), "a JSON pointer is empty or begins with a slash");
  const steps = pointer
    .split("/")
    .slice(1)
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  const [only] = steps;
  if (steps.length === 1 && only !== undefined) return (root) => readStep(root, only);
  return (root) => steps.reduce(readStep, root);
}

function readStep(value: unknown, step: string): unknown {
  if (Array.isArray(value)) return /^(0|[1-9]\d*)$/.test(step) ? value[Number(step)] : undefined;
  return isJsonObject(value) && Object.hasOwn(value, step) ? value[step] : undefined;
}

/** Joins path steps to a JSON pointer, escaping `~` and `/`. */
export function pointerOf(path: readonly PropertyKey[]): string {
  return path.map((step) => `/${String(step).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}
