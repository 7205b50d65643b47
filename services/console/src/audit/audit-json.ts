/**
 * How the audit reads JSON in SQL: texts of ClickHouse expressions, written from the rules in docs/meters.md and from nothing of the
 * fold. {@link READERS} goes behind `WITH`; the functions of this file name what it defines.
 *
 * ClickHouse's JSON functions read numbers as doubles, refuse a whole document for one number of 2^64 or more, or for half a
 * surrogate pair, and know no pointers. So a payload with a number of 16 characters or an exponent is rewritten first: each of its
 * numbers becomes `{"__proto__": "its text"}`, a name that no usage event may have, and half pairs become U+FFFD.
 *
 * A shorter number has at most 15 digits, so the shortest text of its double is its own text without outer zeros: nothing is lost.
 *
 * What most values look like is read by one short expression each. Every other form is a branch of `if`, which the engine
 * evaluates for the rows that need it and for no other.
 */

/** Definitions for `WITH`. */
export const READERS = String.raw`
  -- A payload whose every text and number the JSON functions read exactly. Numbers stand behind one of the characters [ , and :
  payload -> if(NOT match(payload, '[[,:][ \\t\\r\\n]*-?[0-9](?:[0-9.]{15}|[0-9.]*[eE])|\\\\u[dD]'), payload,
    replaceAll(replaceAll(replaceAll(replaceRegexpAll(
      replaceAll(replaceAll(replaceRegexpAll(replaceRegexpAll(replaceAll(payload, '\\\\', '\x03'),
        '\\\\u([dD][89abAB][0-9a-fA-F]{2})\\\\u([dD][c-fC-F][0-9a-fA-F]{2})', '\x04\\1\x04\\2'),
        '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'), '\x04', '\\u'), '\x03', '\\\\'),
      '("(?:[^"\\\\]|\\\\.)*")|(-?[0-9][-+0-9.eE]*)', '\\1\x01\\2\x02'),
      '\x01\x02', ''), '\x01', '{"__proto__":"'), '\x02', '"}')) AS exact,
  -- A number's text without exponent and outer zeros; beyond 400 zeros it keeps an exponent.
  number -> arrayMap(part -> arrayMap((digit, exponent) -> multiIf(
      digit = '', '0',
      abs(exponent) > 400 + length(digit), concat(part[1], digit, 'e', toString(exponent)),
      exponent >= 0, concat(part[1], digit, repeat('0', exponent)),
      length(digit) + exponent > 0,
        concat(part[1], substring(digit, 1, length(digit) + exponent), '.', substring(digit, length(digit) + exponent + 1)),
      concat(part[1], '0.', repeat('0', 0 - exponent - length(digit)), digit)),
    [trim(BOTH '0' FROM concat(part[2], part[3]))],
    [toInt64OrZero(replaceOne(part[4], '+', '')) + toInt64(length(part[2]))
      - toInt64(length(trim(TRAILING '0' FROM concat(part[2], part[3]))))])[1],
    -- Sign, digits before and behind the point, exponent.
    [extractGroups(number, '^(-?)([0-9]+)(?:\\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?$')])[1] AS plain,
  -- Decimal text as a quantity; NULL when it has more than 20 digits before the point or 9 behind it.
  number -> if(match(number, '^-?[0-9]{1,20}(\\.[0-9]{1,9})?$'), toDecimal128OrNull(number, 9), NULL) AS fitting,
  -- The text in a JSON text.
  raw -> if(position(raw, '\\') = 0, substring(raw, 2, length(raw) - 2), JSONExtractString(raw)) AS unquoted,
  -- A scalar's text; NULL when it is absent, null, an object or a list.
  raw -> multiIf(
    startsWith(raw, '"'), unquoted(raw),
    raw IN ('', 'null'), NULL,
    match(raw, '^(true|false|0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\\.[0-9]*[1-9])$'), raw,
    startsWith(raw, '{"__proto__":"'), plain(JSONExtractString(raw, '__proto__')),
    substring(raw, 1, 1) IN ('{', '['), NULL,
    plain(raw)) AS textOf,
  -- A number's quantity: what its nearest double says, cut after nine digits, and from 2^22 on only what a double holds: integers below
  -- 2^53, and others of at most 15 digits.
  number -> arrayMap((own, nearest) -> multiIf(
      NOT isFinite(toFloat64OrZero(number)), NULL,
      abs(toFloat64OrZero(number)) < 4194304, fitting(replaceRegexpOne(nearest, '(\\.[0-9]{9})[0-9]+$', '\\1')),
      nearest != own, NULL,
      position(nearest, '.') = 0, if(abs(toFloat64OrZero(number)) < 9007199254740992, fitting(nearest), NULL),
      length(replaceRegexpAll(nearest, '[-.]', '')) <= 15, fitting(nearest), NULL),
    [plain(number)], [plain(toString(toFloat64OrZero(number)))])[1] AS quantityOfNumber,
  -- The quantity that a value stands for; NULL when there is none or it cannot be read. Text is read exactly or not at all.
  raw -> multiIf(
    match(raw, '^-?[0-9]{1,15}(\\.[0-9]{1,9})?$'), toDecimal128OrNull(raw, 9),
    match(raw, '^"-?[0-9]{1,20}(\\.[0-9]{1,9})?"$'), toDecimal128OrNull(substring(raw, 2, length(raw) - 2), 9),
    startsWith(raw, '"'),
      if(match(unquoted(raw), '^-?[0-9]{1,64}(\\.[0-9]{1,64})?([eE][-+]?[0-9]{1,3})?$'), fitting(plain(unquoted(raw))), NULL),
    startsWith(raw, '{"__proto__":"'), quantityOfNumber(JSONExtractString(raw, '__proto__')),
    match(raw, '^-?[0-9]'), quantityOfNumber(raw), NULL) AS quantityOf,
  -- A dimension: over 256 bytes its first 220 and a digest.
  whole -> if(length(whole) <= 256, whole,
    concat(toValidUTF8(substring(whole, 1, 220)), '~', substring(lower(hex(SHA256(whole))), 1, 32))) AS dimension`;

/** Names that no usage event may have. The rewritten payload uses one. */
const FORBIDDEN_NAMES: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);
/** ClickHouse counts elements from 1, and an index beyond this is beyond any list we keep. */
const INDEX_MAX = 1_000_000_000;

/**
 * The JSON text of what a pointer names in `document`, empty when it names nothing. An array step is a decimal index; the same digits
 * are a name in an object.
 */
export function rawSql(document: string, pointer: string): string {
  let at = document;
  let keys = "";
  for (const escaped of pointer.split("/").slice(1)) {
    const step = escaped.replaceAll("~1", "/").replaceAll("~0", "~");
    if (FORBIDDEN_NAMES.has(step)) return "''";
    const key = `, ${literal(step)}`;
    if (!/^(0|[1-9]\d*)$/.test(step)) {
      keys += key;
      continue;
    }
    const index = Math.min(Number(step), INDEX_MAX) + 1;
    const inside = `JSONExtractRaw(part${keys}, ${index})`;
    const choice = `if(JSONType(part${keys}) = 'Array', ${inside}, JSONExtractRaw(part${keys}${key}))`;
    at = `arrayMap(part -> ${choice}, [${at}])[1]`;
    keys = "";
  }
  return keys === "" ? at : `JSONExtractRaw(${at}${keys})`;
}

/** Text as a ClickHouse literal. */
export function literal(text: string): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
  return `'${escaped.replaceAll(/\p{Cc}/gu, (character) => [...Buffer.from(character)].map(hexByte).join(""))}'`;
}

function hexByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}
