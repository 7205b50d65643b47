/**
 * The first judge of an analyst's statement: its characters and words. It keeps out what the second one (analyst-tree.ts) cannot
 * see or would already have run: a second statement, a comment, INTO OUTFILE, quotes that another reader would close elsewhere.
 */

/** A statement fit to be parsed by the engine, or why it is not. */
export type SelectText =
  | {
      readonly kind: "select";
      /** Without its FORMAT, values in place of the placeholders. */
      readonly sql: string;
      readonly format: string | undefined;
      /** What `WITH name AS (` may have named. */
      readonly withNames: ReadonlySet<string>;
    }
  | { readonly kind: "refused"; readonly reason: string };

/** Longest statement, characters, before and after values are in place: a quarter of what ClickHouse takes. */
export const SELECT_CHARACTERS_MAX = 65_536;

/** One token. Quoted names are plain; a string closes at a quote that is neither doubled nor escaped; no comments. */
const TOKEN =
  /(?<space>[ \t\r\n]+)|(?<string>'(?:[^'\\]|\\[\s\S]|'')*')|(?<quoted>"[A-Za-z_][A-Za-z0-9_ ]*"|`[A-Za-z_][A-Za-z0-9_ ]*`)|(?<word>[A-Za-z0-9_]+)|(?<value>\{[ ]*[A-Za-z_]\w*[ ]*:[^{}]{1,100}\})|(?<mark>[()[\],.+\-*/%<>=!|:?])/y;

/** Words that change where a statement reads or writes, how it is limited, or how much it makes. Also refused as names. */
const REFUSED_WORDS = new Set(["fill", "format", "infile", "into", "outfile", "recursive", "sample", "settings"]);

interface Token {
  readonly kind: "space" | "string" | "quoted" | "word" | "value" | "mark";
  readonly text: string;
}

class Refusal extends Error {
  override readonly name = "Refusal";
}

/**
 * Reads one statement. `params` are values of `{name:Type}` placeholders in ClickHouse's own text form (TabSeparated escapes).
 * Pure.
 */
export function readSelect(text: string, params: ReadonlyMap<string, string>): SelectText {
  try {
    const { tokens, format } = withoutFormat(tokensOf(text));
    checkWords(tokens);
    const sql = tokens.map((token) => (token.kind === "value" ? valueOf(token.text, params) : token.text)).join("");
    if (sql.length > SELECT_CHARACTERS_MAX)
      throw new Refusal(`over ${SELECT_CHARACTERS_MAX} characters with its values`);
    return { kind: "select", sql, format, withNames: withNamesOf(tokens) };
  } catch (error) {
    if (error instanceof Refusal) return { kind: "refused", reason: error.message };
    throw error;
  }
}

function tokensOf(text: string): Token[] {
  if (text.length > SELECT_CHARACTERS_MAX) throw new Refusal(`over ${SELECT_CHARACTERS_MAX} characters`);
  // Within text, too: then nothing that is sent can hold a second statement, whoever reads the quotes.
  if (text.includes(";")) throw new Refusal("`;` is refused, in text too: bind the value as a parameter");
  // oxlint-disable-next-line no-control-regex -- these characters are what is looked for
  if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text)) throw new Refusal("a control character");
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) throw new Refusal(`the character at ${at} begins nothing that is allowed`);
    const [kind, found = ""] = Object.entries(groups).find(([, value]) => value !== undefined) ?? [];
    const token = { kind: kind as Token["kind"], text: found };
    checkNeighbours(tokens.at(-1), token);
    tokens.push(token);
  }
  return tokens;
}

/** `--` and `/*` begin comments; `x'…'` is text with other escapes; `'a''b'` was one token, so two in a row are odd. */
function checkNeighbours(before: Token | undefined, token: Token): void {
  const pair = `${before?.kind === "mark" ? before.text : ""}${token.kind === "mark" ? token.text : ""}`;
  if (pair === "--" || pair === "/*") throw new Refusal("comments are refused");
  const isQuote = token.kind === "string" || token.kind === "quoted" || token.kind === "value";
  const touches = before !== undefined && before.kind !== "space" && before.kind !== "mark";
  if (isQuote && touches) throw new Refusal("a quote right after a word or another quote");
}

/** Takes a trailing `FORMAT name` off. */
function withoutFormat(tokens: readonly Token[]): { tokens: Token[]; format: string | undefined } {
  const solid = tokens.filter(({ kind }) => kind !== "space");
  const [keyword, name] = solid.slice(-2);
  const hasFormat = keyword?.kind === "word" && keyword.text.toLowerCase() === "format" && name?.kind === "word";
  if (!hasFormat) return { tokens: [...tokens], format: undefined };
  return { tokens: tokens.slice(0, tokens.lastIndexOf(keyword)), format: name.text };
}

function checkWords(tokens: readonly Token[]): void {
  const solid = tokens.filter(({ kind }) => kind !== "space");
  if (!/^(?:select|with)$/i.test(solid[0]?.text ?? "")) throw new Refusal("only SELECT, or WITH … SELECT");
  for (const [index, { kind, text }] of solid.entries()) {
    const isTable = solid[index - 2]?.text === "system" && solid[index - 1]?.text === "." && text === "settings";
    if (kind === "word" && REFUSED_WORDS.has(text.toLowerCase()) && !isTable) throw new Refusal(`the word ${text}`);
  }
}

function withNamesOf(tokens: readonly Token[]): Set<string> {
  const solid = tokens.filter(({ kind }) => kind !== "space");
  const names = new Set<string>();
  for (const [index, { kind, text }] of solid.entries()) {
    const isNamed = solid[index + 1]?.text.toLowerCase() === "as" && solid[index + 2]?.text === "(";
    if (isNamed && kind === "word") names.add(text);
    if (isNamed && kind === "quoted") names.add(text.slice(1, -1));
  }
  return names;
}

const SCALAR = String.raw`(?:String|Bool|U?Int(?:8|16|32|64|128|256)|Float(?:32|64)|Decimal\(\d+, ?\d+\)|Date|Date32|DateTime(?:\('[\w/+-]+'\))?|DateTime64\(\d(?:, ?'[\w/+-]+')?\))`;
const PLACEHOLDER = new RegExp(String.raw`^\{ *(\w+) *: *(Array\(${SCALAR}\)|Nullable\(${SCALAR}\)|${SCALAR}) *\}$`);
const NULL_VALUE = String.raw`\N`;

/**
 * A placeholder's value as a literal. Not bound by the engine: chDB lets one statement with bound values run at a time in the
 * whole process, and the services would wait for the analyst. A type that names a table or a column (`Identifier`) is refused.
 */
function valueOf(placeholder: string, params: ReadonlyMap<string, string>): string {
  const [, name = "", type = ""] = PLACEHOLDER.exec(placeholder) ?? [];
  if (name === "")
    throw new Refusal(`the placeholder ${placeholder}: values of numbers, text, dates and arrays of them`);
  const value = params.get(name);
  if (value === undefined) throw new Refusal(`no value for the placeholder ${name}: send param_${name}`);
  if (value === NULL_VALUE && type.startsWith("Nullable")) return "NULL";
  // Arrays come as a literal of their own, whose inner escapes belong to the cast.
  const literal = literalOf(type.startsWith("Array") ? value : unescaped(value));
  return type === "String" ? literal : `CAST(${literal}, ${literalOf(type)})`;
}

/** Text of any characters as a literal of plain ones: every byte that is not harmless is written as `\xHH`. */
function literalOf(text: string): string {
  const bytes = Array.from(Buffer.from(text, "utf8"), (byte) => {
    const character = String.fromCharCode(byte);
    return /[A-Za-z0-9 _.:,+/()-]/.test(character) ? character : `\\x${byte.toString(16).padStart(2, "0")}`;
  });
  return `'${bytes.join("")}'`;
}

const ESCAPES: Readonly<Record<string, string>> = { t: "\t", n: "\n", r: "\r", "0": "\0", b: "\b", f: "\f" };

function unescaped(text: string): string {
  return text.replaceAll(/\\(.)/gs, (_, letter: string) => ESCAPES[letter] ?? letter);
}
