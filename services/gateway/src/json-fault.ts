/** Where a text stops being JSON: JSON.parse does not always say. Runs on refused bodies only. */

export interface JsonFault {
  /** UTF-16 units before the first token that cannot stand there. */
  readonly offset: number;
  /** Both from 1; columns in UTF-16 units. */
  readonly line: number;
  readonly column: number;
}

const BLANKS = /[ \t\n\r]*/y;
// oxlint-disable-next-line no-control-regex -- a JSON string holds any character but exactly these
const STRING = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*"/y;
const SCALAR = /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.+-])/y;

type Expected = "value" | "value or ]" | "name" | "name or }" | ":" | ", or end" | "nothing";

const CLOSABLE: ReadonlySet<Expected> = new Set(["value or ]", "name or }", ", or end"]);

/** The first fault of the text, or null when it is JSON. */
export function locateJsonFault(text: string): JsonFault | null {
  const open: string[] = [];
  let expected: Expected = "value";
  for (let at = endOf(BLANKS, text, 0); at < text.length; at = endOf(BLANKS, text, at)) {
    const character = text[at] ?? "";
    const next = follow({ expected, character, open });
    if (next === null) return faultAt(text, at);
    const end = next.pattern === null ? at + 1 : endOf(next.pattern, text, at);
    if (end === at) return faultAt(text, at);
    at = end;
    expected = next.expected === ", or end" && open.length === 0 ? "nothing" : next.expected;
  }
  return expected === "nothing" ? null : faultAt(text, text.length);
}

/** What a token that begins with this character leads to, and how the token goes on; null where none may begin so. */
function follow(state: {
  expected: Expected;
  character: string;
  open: string[];
}): { readonly expected: Expected; readonly pattern: RegExp | null } | null {
  const { expected, character, open } = state;
  const isInObject = open.at(-1) === "{";
  if (CLOSABLE.has(expected) && character === (isInObject ? "}" : "]")) {
    open.pop();
    return { expected: ", or end", pattern: null };
  }
  switch (expected) {
    case "value":
    case "value or ]":
      if (character === "{" || character === "[") {
        open.push(character);
        return { expected: character === "{" ? "name or }" : "value or ]", pattern: null };
      }
      return { expected: ", or end", pattern: character === '"' ? STRING : SCALAR };
    case "name":
    case "name or }":
      return character === '"' ? { expected: ":", pattern: STRING } : null;
    case ":":
      return character === ":" ? { expected: "value", pattern: null } : null;
    case ", or end":
      return character === "," ? { expected: isInObject ? "name" : "value", pattern: null } : null;
    case "nothing":
      return null;
  }
}

/** Where the pattern's match at `from` ends; `from` when it does not match there. */
function endOf(pattern: RegExp, text: string, from: number): number {
  pattern.lastIndex = from;
  return pattern.test(text) ? pattern.lastIndex : from;
}

function faultAt(text: string, offset: number): JsonFault {
  const before = text.slice(0, offset).split("\n");
  return { offset, line: before.length, column: (before.at(-1) ?? "").length + 1 };
}
