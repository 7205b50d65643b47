/** What the front must know of a statement before the engine sees it. Pure. */

/** The text with everything quoted or commented blanked out, so that no keyword hides there and offsets stay. */
export function quieted(sql: string): string {
  const parts: string[] = [];
  const opener = /['"`]|--|\/\*/g;
  let from = 0;
  for (let found = opener.exec(sql); found !== null; found = opener.exec(sql)) {
    const end = endOf(sql, found[0], opener.lastIndex);
    parts.push(sql.slice(from, found.index), " ".repeat(end - found.index));
    from = end;
    opener.lastIndex = end;
  }
  return [...parts, sql.slice(from)].join("");
}

/** Where what `opener` began ends; not by one expression, whose stack a text of some megabytes would exhaust. */
function endOf(sql: string, opener: string, from: number): number {
  if (opener === "--" || opener === "/*") {
    const closer = opener === "--" ? "\n" : "*/";
    const at = sql.indexOf(closer, from);
    return at === -1 ? sql.length : at + closer.length;
  }
  const marks = new RegExp(`[${opener}\\\\]`, "g");
  marks.lastIndex = from;
  for (let mark = marks.exec(sql); mark !== null; mark = marks.exec(sql)) {
    if (mark[0] === opener) return marks.lastIndex;
    // A backslash takes the next character with it.
    marks.lastIndex += 1;
  }
  return sql.length;
}

/** How a statement is run: its rows are streamed, it is done, or its data follows. */
export type StatementKind = "select" | "insert" | "stateful" | "other";

/** `stateful`: it would change a session, and the front keeps none. */
export function kindOf(sql: string): StatementKind {
  const text = quieted(sql);
  if (/^[\s(]*(SELECT|WITH)\b/i.test(text)) return "select";
  if (/^\s*INSERT\b/i.test(text)) return "insert";
  if (/^\s*(SET|USE)\b/i.test(text) || /^\s*CREATE\s+TEMPORARY\b/i.test(text)) return "stateful";
  return "other";
}

/** An INSERT whose rows follow the statement, split where `FROM INFILE` belongs. */
export interface InsertHead {
  /** `INSERT INTO table (columns)` */
  readonly target: string;
  /** `SETTINGS …` or nothing. */
  readonly settings: string;
  readonly format: string;
  /** Where the rows begin. */
  readonly end: number;
}

/** Undefined when the rows come from a SELECT or stand as VALUES in the statement itself. */
export function insertHeadOf(sql: string): InsertHead | undefined {
  const text = quieted(sql);
  const found = /^\s*INSERT\s+INTO\s[\s\S]*?(?=\bFORMAT\s)/i.exec(text);
  if (found === null || /\b(SELECT|VALUES|WITH)\b/i.test(found[0])) return undefined;
  const tail = /^FORMAT\s+(\w+)(?:[ \t]*;)?[ \t]*(?:\r?\n)?/i.exec(text.slice(found[0].length));
  if (tail === null) return undefined;
  const settingsAt = found[0].search(/\bSETTINGS\b/i);
  const targetEnd = settingsAt === -1 ? found[0].length : settingsAt;
  return {
    target: sql.slice(0, targetEnd).trim(),
    settings: sql.slice(targetEnd, found[0].length).trim(),
    format: tail[1] ?? "",
    end: found[0].length + tail[0].length,
  };
}

/** The format that the statement names for its answer. */
export function answerFormatOf(sql: string): string | undefined {
  const text = quieted(sql);
  return /\bFORMAT\s+(\w+)\s*(?:\bSETTINGS\b[\s\S]*)?[\s;]*$/i.exec(text)?.[1];
}

/**
 * Formats whose pieces may simply follow each other. chDB writes every piece of a stream as if it were the whole, so a
 * format with a heading or an end is fetched in one piece.
 */
const STREAMED = /^((TabSeparated|TSV)(Raw)?|CSV|JSON(Compact)?(Strings)?EachRow|JSONLines|NDJSON|Native|RowBinary)$/;

/** Whether rows of this format can be sent as they come. */
export function isStreamed(format: string): boolean {
  return STREAMED.test(format);
}

/** What a server sends as Content-Type. */
export function contentTypeOf(format: string): string {
  if (/EachRow|JSONLines|NDJSON/.test(format)) return "application/x-ndjson; charset=UTF-8";
  if (format.startsWith("JSON")) return "application/json; charset=UTF-8";
  if (format.startsWith("CSV")) return "text/csv; charset=UTF-8";
  if (/^(TabSeparated|TSV)/.test(format)) return "text/tab-separated-values; charset=UTF-8";
  if (/^(Pretty|Vertical|Values|XML|Markdown)/.test(format)) return "text/plain; charset=UTF-8";
  return "application/octet-stream";
}

/** Where a statement asks the front to break its answer, by a comment `front:fail-after=BYTES` or `front:cut-after=BYTES`. */
export interface Breakage {
  readonly how: "fail" | "cut";
  readonly afterBytes: number;
}

/** Reads the order out of a comment of the statement. */
export function breakageOf(sql: string): Breakage | undefined {
  const [, how, bytes] = /\/\*\s*front:(fail|cut)-after=(\d{1,9})\s*\*\//.exec(sql) ?? [];
  if (how !== "fail" && how !== "cut") return undefined;
  return { how, afterBytes: Number(bytes) };
}
