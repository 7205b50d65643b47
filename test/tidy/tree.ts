/** The tree as text, so that a rule can be run on the repository and on a few lines made to break it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Paths relative to the root, with forward slashes, and what the files hold. */
export type Tree = ReadonlyMap<string, string>;

/** What a rule found: `path:line what is wrong`, or `path what is wrong`. Empty when the tree keeps the rule. */
export type Rule = (tree: Tree) => string[];

/** The repository. */
export const ROOT = join(import.meta.dirname, "..", "..");

/** Files whose bytes are no text, or that others write for us. */
const UNREAD = /\.(png|ico|woff2|zip|gz|csv)$|^package-lock\.json$|^services\/stripe-emulator\/api\//;

/** Tests, what they share and the programs they start: none of it is a part of the product. */
export const TEST_CODE = /\.test\.ts$|\.fixture\.ts$|\/(?:testing|fixtures|test-support)\/|\/test-[a-z-]+\.ts$/;

/** Every text file that is not ignored, from the disk and not from git: an unpacked archive is judged like a clone. */
export function readRepository(): Tree {
  const ignored = ignoredBy(readFileSync(join(ROOT, ".gitignore"), "utf8"));
  const files = new Map<string, string>();
  const walk = (folder: string): void => {
    for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.name === ".git" || ignored(entry.name)) continue;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile() && !UNREAD.test(path)) files.set(path, readFileSync(join(ROOT, path), "utf8"));
    }
  };
  walk("");
  if (files.size < 50) throw new Error(`only ${files.size} files: not the repository`);
  return new Map([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The part of .gitignore's language that ours uses: one name or `*.suffix` a line, at any depth. */
function ignoredBy(text: string): (name: string) => boolean {
  const names = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return (name) =>
    names.some((line) => (line.startsWith("*") ? name.endsWith(line.slice(1)) : name === line.replace(/\/$/, "")));
}

/** A small tree for a rule's own test. */
export function treeOf(files: Readonly<Record<string, string>>): Tree {
  return new Map(Object.entries(files));
}

/** Files whose path matches, with their lines. */
export function filesOf(tree: Tree, pattern: RegExp): { path: string; text: string; lines: string[] }[] {
  return [...tree]
    .filter(([path]) => pattern.test(path))
    .map(([path, text]) => ({ path, text, lines: text.split("\n") }));
}

/** One problem for each match of `pattern` in `text`, with its line. `what` gets the match. */
export function problemsOf(
  file: { path: string; text: string },
  pattern: RegExp,
  what: (match: RegExpExecArray) => string | null,
): string[] {
  return [...file.text.matchAll(pattern)].flatMap((match) => {
    const found = what(match);
    return found === null ? [] : [`${file.path}:${lineAt(file.text, match.index)} ${found}`];
  });
}

/** 1 for the first line. */
export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}
