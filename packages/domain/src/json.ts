/** JSON without silent damage: numbers that a double cannot hold are kept as their own text. */

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

/** Sixteen digits or dots in a row: only then can a token hold more than 15 significant digits. A cheap guard. */
const MAYBE_INEXACT = /[0-9.]{16}/;
const SIGNIFICANT_DIGITS_MAX = 15;

/** Whether a JSON number token survives the way through a double: a safe integer, or at most 15 significant digits. */
function isExactToken(token: string, value: number): boolean {
  if (Number.isSafeInteger(value) && /^-?\d+$/.test(token)) return true;
  const mantissa = token.replace(/[eE].*$/, "").replace("-", "");
  const digits = mantissa.replace(".", "").replace(/^0+/, "").replace(/0+$/, "");
  return Number.isFinite(value) && digits.length <= SIGNIFICANT_DIGITS_MAX;
}

/**
 * JSON.parse, but a number that a double cannot hold exactly becomes a raw number: {@link isRawNumber} is true for it, and
 * JSON.stringify prints its token unchanged. Everything else is what JSON.parse gives.
 * @throws {SyntaxError} when the text is no JSON.
 */
export function parseJson(text: string): unknown {
  if (!MAYBE_INEXACT.test(text)) return JSON.parse(text);
  return exactJson.parse(text, (_key, value, { source }) =>
    typeof value === "number" && source !== undefined && !isExactToken(source, value)
      ? exactJson.rawJSON(source)
      : value,
  );
}

/** A number kept as text by {@link parseJson}; such a value is never a quantity. */
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
  if (typeof value === "number") return decimalTextOf(value);
  if (typeof value === "boolean") return value ? "true" : "false";
  return isRawNumber(value) ? value.rawJSON : null;
}

/** A finite number as decimal text without exponent, so 1e21 and 1000000000000000000000 are one dimension value. */
function decimalTextOf(value: number): string {
  const text = String(value);
  if (!text.includes("e")) return text === "-0" ? "0" : text;
  const [mantissa = "", exponent = "0"] = text.split("e");
  const negative = mantissa.startsWith("-");
  const [integer = "", fraction = ""] = mantissa.replace("-", "").split(".");
  const shift = Number(exponent);
  const digits = integer + fraction;
  const point = integer.length + shift;
  const plain =
    point <= 0
      ? `0.${"0".repeat(-point)}${digits}`
      : point >= digits.length
        ? digits + "0".repeat(point - digits.length)
        : `${digits.slice(0, point)}.${digits.slice(point)}`;
  return negative ? `-${plain}` : plain;
}

/** JSON text with sorted keys at every depth: equal for payloads that mean the same, whatever their key order. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (isJsonObject(value)) {
    const names = Object.keys(value).sort();
    return `{${names.map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}

/**
 * Compiles a JSON pointer into a reader. `""` is the whole value; array steps are decimal indices.
 * @see https://www.rfc-editor.org/rfc/rfc6901 (read 2026-11)
 */
export function compilePointer(pointer: string): (root: unknown) => unknown {
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
