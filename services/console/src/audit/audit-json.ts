/**
 * How the audit reads JSON in SQL: texts of ClickHouse expressions, written from the rules in docs/meters.md and from nothing of the
 * fold. {@link READERS} goes behind `WITH`; the functions of this file name what it defines.
 *
 * ClickHouse's JSON functions read numbers as doubles, refuse a whole document for one number of 2^64 or more, or for half a
 * surrogate pair, and know no pointers. So a payload with a number of 16 digits or an exponent is rewritten first: each of its
 * numbers becomes `{"__proto__": "its text"}`, a name that no usage event may have, and half pairs become U+FFFD.
 */

/** Definitions for `WITH`. */
export const READERS = String.raw`
  -- A payload whose every text and number the JSON functions read exactly.
  payload -> if(NOT match(payload, '[0-9.]{16}|[0-9][eE][-+0-9]|\\\\ud'), payload,
    replaceAll(replaceAll(replaceAll(replaceRegexpAll(
      replaceAll(replaceRegexpAll(replaceAll(payload, '\\\\', '\x03'), '\\\\ud[89a-f][0-9a-f]{2}', '\\\\ufffd'), '\x03', '\\\\'),
      '("(?:[^"\\\\]|\\\\.)*")|(-?[0-9][-+0-9.eE]*)', '\\1\x01\\2\x02'),
      '\x01\x02', ''), '\x01', '{"__proto__":"'), '\x02', '"}')) AS exact,
  -- Decimal text as a quantity; NULL when it has more than 20 digits before the point or 9 behind it.
  number -> if(match(number, '^-?[0-9]{1,20}(\\.[0-9]{1,9})?$'), toDecimal128OrNull(number, 9), NULL) AS fitting,
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

/** Sign, digits before and behind the point, exponent. */
const NUMBER_PARTS = String.raw`'^(-?)([0-9]+)(?:\\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$'`;
/** What may be sent as a quantity's text. */
const SENT_NUMBER = String.raw`'^-?[0-9]{1,64}(\\.[0-9]{1,64})?([eE][-+]?[0-9]{1,3})?$'`;

/**
 * Adds columns to the rows of `source`, which have the column `json`: `texts`, the texts of scalars in the order of the pointers, NULL
 * for absent, null, objects and lists; and with `value`, the metered `quantity`, NULL when it is absent or cannot be read.
 *
 * `plains`: numbers without exponent and outer zeros, the way a dimension holds them; beyond 400 zeros they keep an exponent.
 * `quantity`: text exactly or not at all; a number as the nearest double says, cut after nine digits, and from 2^22 on only what a
 * double holds: integers below 2^53, and others of at most 15 digits.
 *
 * One SELECT around the other, because the analyzer of ClickHouse resolves an alias anew wherever it is used.
 */
export function withValues(source: string, input: { texts: readonly string[]; value?: string }): string {
  const { texts, value } = input;
  const scalars = (value === undefined ? texts : [...texts, value]).map((pointer) => scalarSql("json", pointer));
  const nearest = value === undefined ? "read" : "arrayPushBack(read, ('n', toString(toFloat64OrZero(read[-1].2))))";
  const levels = [
    `CAST([${scalars.join(", ")}], 'Array(Tuple(String, String))') AS read`,
    `${nearest} AS scalars`,
    `arrayMap(found -> extractGroups(found.2, ${NUMBER_PARTS}), scalars) AS parts`,
    `arrayMap(part -> trim(BOTH '0' FROM concat(part[2], part[3])), parts) AS digits,
    arrayMap(part -> toInt64OrZero(replaceOne(part[4], '+', '')) + toInt64(length(part[2]))
      - toInt64(length(trim(TRAILING '0' FROM concat(part[2], part[3])))), parts) AS exponents`,
    `arrayMap((part, digit, exponent) -> multiIf(
      digit = '', '0',
      abs(exponent) > 400 + length(digit), concat(part[1], digit, 'e', toString(exponent)),
      exponent >= 0, concat(part[1], digit, repeat('0', exponent)),
      length(digit) + exponent > 0,
        concat(part[1], substring(digit, 1, length(digit) + exponent), '.', substring(digit, length(digit) + exponent + 1)),
      concat(part[1], '0.', repeat('0', 0 - exponent - length(digit)), digit)), parts, digits, exponents) AS plains`,
    `arrayMap((found, plain) -> multiIf(found.1 = 'n', plain, found.1 = 's', found.2, NULL), scalars, plains) AS texts`,
    ...(value === undefined ? [] : [`${quantitySql("json", value)} AS quantity`]),
  ];
  return levels.reduce((rows, columns) => `SELECT *, ${columns}\n  FROM (${rows})`, source);
}

/** Of the last two elements: the value, and the text of its nearest double. */
function quantitySql(document: string, pointer: string): string {
  const { document: at, keys } = placeOf(document, pointer);
  return `multiIf(
      JSONType(${at}${keys}) IN ('Int64', 'UInt64', 'Double'), toNullable(JSONExtract(${at}${keys}, 'Decimal(38, 9)')),
      scalars[-2].1 = 's', if(match(scalars[-2].2, ${SENT_NUMBER}), fitting(plains[-2]), NULL),
      scalars[-2].1 != 'n' OR NOT isFinite(toFloat64OrZero(scalars[-2].2)), NULL,
      abs(toFloat64OrZero(scalars[-2].2)) < 4194304, fitting(replaceRegexpOne(plains[-1], ${String.raw`'(\\.[0-9]{9})[0-9]+$', '\\1'`})),
      plains[-1] != plains[-2], NULL,
      position(plains[-1], '.') = 0, if(abs(toFloat64OrZero(scalars[-2].2)) < 9007199254740992, fitting(plains[-1]), NULL),
      length(replaceRegexpAll(plains[-1], '[-.]', '')) <= 15, fitting(plains[-1]), NULL)`;
}

/** Text as a ClickHouse literal. */
export function literal(text: string): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
  return `'${escaped.replaceAll(/\p{Cc}/gu, (character) => [...Buffer.from(character)].map(hexByte).join(""))}'`;
}

function hexByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}
