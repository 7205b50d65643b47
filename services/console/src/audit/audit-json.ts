/**
 * How the audit reads JSON in SQL: texts of ClickHouse expressions, written from the rules in docs/meters.md and from nothing of the
 * fold. {@link READERS} goes behind `WITH`; the functions of this file name what it defines.
 *
 * ClickHouse's JSON functions read numbers as doubles, refuse a whole document for one number of 2^64 or more, or for half a
 * surrogate pair, and know no pointers. So a payload with a number of 16 digits or an exponent is rewritten first: each of its
 * numbers becomes `{"__proto__": "its text"}`, a name that no usage event may have, and half pairs become U+FFFD.
 */

/** A number's text without exponent and outer zeros, the way a dimension holds it. Beyond 400 zeros it keeps an exponent. */
const PLAIN = String.raw`
  token -> arrayMap(parts -> arrayMap((zeroed, digits) -> arrayMap(exponent -> multiIf(
      digits = '', '0',
      abs(exponent) > 400 + length(digits), concat(parts[1], digits, 'e', toString(exponent)),
      exponent >= 0, concat(parts[1], digits, repeat('0', exponent)),
      concat(parts[1], arrayMap(padded -> concat(substring(padded, 1, length(padded) + exponent), '.',
        substring(padded, length(padded) + exponent + 1)), [concat(repeat('0', 1 - exponent - toInt64(length(digits))), digits)])[1])),
    [toInt64OrZero(replaceOne(parts[4], '+', '')) - toInt64(length(parts[3]))
      + toInt64(length(zeroed)) - toInt64(length(trim(TRAILING '0' FROM zeroed)))])[1],
    [concat(parts[2], parts[3])], [trim(BOTH '0' FROM concat(parts[2], parts[3]))])[1],
  [extractGroups(token, '^(-?)([0-9]+)(?:\\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$')])[1]`;

/** Definitions for `WITH`, in the order they need each other. */
export const READERS = String.raw`
  -- A payload whose every text and number the JSON functions read exactly.
  payload -> if(NOT match(payload, '[0-9.]{16}|[0-9][eE][-+0-9]|\\\\ud'), payload,
    replaceAll(replaceAll(replaceAll(replaceRegexpAll(
      replaceAll(replaceRegexpAll(replaceAll(payload, '\\\\', '\x03'), '\\\\ud[89a-f][0-9a-f]{2}', '\\\\ufffd'), '\x03', '\\\\'),
      '("(?:[^"\\\\]|\\\\.)*")|(-?[0-9][-+0-9.eE]*)', '\\1\x01\\2\x02'),
      '\x01\x02', ''), '\x01', '{"__proto__":"'), '\x02', '"}')) AS exact,
  -- A number's text without exponent and outer zeros.${PLAIN} AS plain,
  -- Decimal text as a quantity; NULL when it has more than 20 digits before the point or 9 behind it.
  number -> if(match(number, '^-?[0-9]{1,20}(\\.[0-9]{1,9})?$'), toDecimal128OrNull(number, 9), NULL) AS fitting,
  -- A quantity that was sent as text: exactly, or not at all.
  sent -> if(match(sent, '^-?[0-9]{1,64}(\\.[0-9]{1,64})?([eE][-+]?[0-9]{1,3})?$'), fitting(plain(sent)), NULL) AS ofText,
  -- A quantity that was sent as a number, from its text: what the nearest double says, cut after nine digits; from 2^22 on only
  -- what a double holds: integers below 2^53, and others of at most 15 digits.
  number -> arrayMap(nearest -> arrayMap(shortest -> multiIf(
      NOT isFinite(nearest), NULL,
      abs(nearest) < 4194304, fitting(replaceRegexpOne(shortest, '(\\.[0-9]{9})[0-9]+$', '\\1')),
      shortest != plain(number), NULL,
      position(shortest, '.') = 0, if(abs(nearest) < 9007199254740992, fitting(shortest), NULL),
      length(replaceRegexpAll(shortest, '[-.]', '')) <= 15, fitting(shortest), NULL),
    [plain(toString(nearest))])[1], [toFloat64OrZero(number)])[1] AS ofNumber,
  -- A dimension: over 256 bytes its first 220 and a digest.
  whole -> if(length(whole) <= 256, whole,
    concat(toValidUTF8(substring(whole, 1, 220)), '~', substring(lower(hex(SHA256(whole))), 1, 32))) AS dimension`;

/** A place in a JSON document: the expression of the document, and the arguments behind it, each with a comma before it. */
interface Place {
  readonly document: string;
  readonly keys: string;
}

/** Names that no usage event may have. The rewritten payload uses one. */
const FORBIDDEN_NAMES: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);
/** ClickHouse counts elements from 1, and an index beyond this is beyond any list we keep. */
const INDEX_MAX = 1_000_000_000;

/** What a JSON pointer names in `document`. An array step is a decimal index; the same digits are a name in an object. */
function placeOf(document: string, pointer: string): Place {
  let place: Place = { document, keys: "" };
  for (const escaped of pointer.split("/").slice(1)) {
    const step = escaped.replaceAll("~1", "/").replaceAll("~0", "~");
    if (FORBIDDEN_NAMES.has(step)) return { document: "'null'", keys: "" };
    const key = `, ${literal(step)}`;
    if (!/^(0|[1-9]\d*)$/.test(step)) {
      place = { ...place, keys: place.keys + key };
      continue;
    }
    const index = Math.min(Number(step), INDEX_MAX) + 1;
    const inside = `JSONExtractRaw(part${place.keys}, ${index})`;
    const choice = `if(JSONType(part${place.keys}) = 'Array', ${inside}, JSONExtractRaw(part${place.keys}${key}))`;
    place = { document: `arrayMap(part -> ${choice}, [${place.document}])[1]`, keys: "" };
  }
  return place;
}

/** Whether there is a value other than null. */
export function existsSql(document: string, pointer: string): string {
  const { document: at, keys } = placeOf(document, pointer);
  return `JSONType(${at}${keys}) != 'Null'`;
}

/** A scalar as (kind, text): `s` for text and truth values, `n` for a number's text, the empty kind for anything else. */
function scalarSql(document: string, pointer: string): string {
  const { document: at, keys } = placeOf(document, pointer);
  return `multiIf(
    JSONType(${at}${keys}) = 'String', ('s', JSONExtractString(${at}${keys})),
    JSONType(${at}${keys}) = 'Bool', ('s', JSONExtractRaw(${at}${keys})),
    JSONType(${at}${keys}) IN ('Int64', 'UInt64', 'Double'), ('n', JSONExtractRaw(${at}${keys})),
    JSONHas(${at}${keys}, '__proto__'), ('n', JSONExtractString(${at}${keys}, '__proto__')),
    ('', ''))`;
}

/** The texts of scalars, in the order of the pointers; NULL for absent, null, objects and lists. */
export function textsSql(document: string, pointers: readonly string[]): string {
  const scalars = pointers.map((pointer) => scalarSql(document, pointer));
  return `arrayMap(found -> multiIf(found.1 = 'n', plain(found.2), found.1 = 's', found.2, NULL),
    CAST([${scalars.join(", ")}], 'Array(Tuple(String, String))'))`;
}

/** A metered value as Decimal(38, 9); NULL when it is absent or cannot be read. */
export function quantitySql(document: string, pointer: string): string {
  const { document: at, keys } = placeOf(document, pointer);
  return `multiIf(
    JSONType(${at}${keys}) IN ('Int64', 'UInt64', 'Double'), toNullable(JSONExtract(${at}${keys}, 'Decimal(38, 9)')),
    JSONType(${at}${keys}) = 'String', ofText(JSONExtractString(${at}${keys})),
    JSONHas(${at}${keys}, '__proto__'), ofNumber(JSONExtractString(${at}${keys}, '__proto__')),
    NULL)`;
}

/** Text as a ClickHouse literal. */
export function literal(text: string): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
  return `'${escaped.replaceAll(/\p{Cc}/gu, (character) => [...Buffer.from(character)].map(hexByte).join(""))}'`;
}

function hexByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}
