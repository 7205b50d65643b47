/** TypeScript source with the parts that a rule must not read blanked out; every line stays where it was. */

const blank = (text: string): string => text.replaceAll(/[^\n]/g, " ");

// What can stand before a `/` that begins a regular expression; after a name, a number or a bracket it divides.
const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of))\s*$/;
const REGEX = /\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
/** A run in which nothing can begin. */
const PLAIN = /[^/"'`{}]+/y;
const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const QUOTED = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/y;

/** Blanks comments, and with `strings` also the contents of strings, templates and regular expressions. */
function maskSource(text: string, masked: { comments?: boolean; strings?: boolean }): string {
  let out = "";
  let at = 0;
  const braces: number[] = []; // Depths at which a template goes on after `}`.
  let depth = 0;
  const take = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0] ?? null;
  };
  const emit = (piece: string, isMasked: boolean | undefined): void => {
    out += isMasked === true ? piece[0] + blank(piece.slice(1, -1)) + piece.slice(-1) : piece;
    at += piece.length;
  };
  while (at < text.length) {
    const plain = take(PLAIN);
    if (plain !== null) {
      emit(plain, false);
      continue;
    }
    const comment = take(COMMENT);
    if (comment !== null) {
      out += masked.comments === true ? blank(comment) : comment;
      at += comment.length;
      continue;
    }
    const isSlash = text[at] === "/";
    const literal = take(QUOTED) ?? (isSlash && REGEX_MAY_FOLLOW.test(out.slice(-40)) ? take(REGEX) : null);
    if (literal !== null) {
      emit(literal, masked.strings);
      continue;
    }
    const char = text[at] ?? "";
    if (char === "{") depth += 1;
    if (char === "}") depth -= 1;
    const resumes = char === "}" && braces.at(-1) === depth;
    if (resumes) braces.pop();
    if (char !== "`" && !resumes) {
      emit(char, false);
      continue;
    }
    const piece = templatePieceAt(text, at);
    if (piece.endsWith("${")) {
      braces.push(depth);
      depth += 1;
    }
    emit(piece, masked.strings);
  }
  return out;
}

/** From a backtick or a closing brace to the end of the template or its next `${`, both included. */
function templatePieceAt(text: string, start: number): string {
  let at = start + 1;
  while (at < text.length) {
    if (text[at] === "\\") at += 2;
    else if (text[at] === "`") return text.slice(start, at + 1);
    else if (text.startsWith("${", at)) return text.slice(start, at + 2);
    else at += 1;
  }
  return text.slice(start);
}

/** Code without comments: what is left runs. */
export function codeOf(text: string): string {
  return remembered(codes, text, () => maskSource(text, { comments: true }));
}

/** Code without comments and without what stands in strings. */
export function bareCodeOf(text: string): string {
  return remembered(bareCodes, text, () => maskSource(text, { comments: true, strings: true }));
}

// Many rules read the same files; a test run reads one tree of a few MB.
const codes = new Map<string, string>();
const bareCodes = new Map<string, string>();

function remembered(known: Map<string, string>, text: string, make: () => string): string {
  const made = known.get(text) ?? make();
  known.set(text, made);
  return made;
}

/** Comments only: everything that runs is blanked. */
export function commentsOf(text: string): string {
  const code = codeOf(text);
  return text.replaceAll(/[^\n]/g, (char, at: number) => (code[at] === char ? " " : char));
}

/** Matches that begin in code that runs, neither in a comment nor in a string; the rest of a match may be a string. */
export function liveMatches(text: string, pattern: RegExp): RegExpExecArray[] {
  const bare = bareCodeOf(text);
  return [...codeOf(text).matchAll(pattern)].filter((match) => bare[match.index] === match[0][0]);
}
