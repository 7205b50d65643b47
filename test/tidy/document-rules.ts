/** What documents promise must be there: links, file names, commands; and they stay short. */
import { posix } from "node:path";
import { filesOf, problemsOf, type Tree } from "./tree.ts";

const DOCUMENT = /\.md$/;

/** Relative links of documents lead to a file or folder of the tree, and to a heading where they name one. */
export function brokenLinks(tree: Tree): string[] {
  return filesOf(tree, DOCUMENT).flatMap((file) =>
    problemsOf(file, /\]\(([^)\s]+)\)/g, ([, target = ""]) => {
      if (/^[a-z]+:/.test(target)) return null;
      const [path = "", anchor] = target.split("#");
      const resolved = path === "" ? file.path : posix.normalize(posix.join(posix.dirname(file.path), path));
      if (!exists(tree, resolved)) return `links to ${target}, which does not exist`;
      const isKnown = anchor === undefined || headingAnchors(tree.get(resolved) ?? "").includes(anchor);
      return isKnown ? null : `links to ${target}, a heading that does not exist`;
    }),
  );
}

function headingAnchors(text: string): string[] {
  return [...text.matchAll(/^#+ +(.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .trim()
      .replaceAll(/\s/g, "-"),
  );
}

/** The folders whose files documents name from the root. */
const NAMED_PATH = /`((?:services|packages|infra|test|docs|examples|\.ci|\.github)\/[^`\s]+)`/g;

/** File names in backticks exist; `*` and `{a,b}` are patterns that must match something. */
export function missingFileNames(tree: Tree): string[] {
  return filesOf(tree, DOCUMENT).flatMap((file) =>
    problemsOf(file, NAMED_PATH, ([, name = ""]) =>
      exists(tree, name) ? null : `names ${name}, which does not exist`,
    ),
  );
}

function exists(tree: Tree, name: string): boolean {
  const path = name.replace(/\/$/, "").replace(/:\d+$/, "");
  if (path === "." || path === "" || tree.has(path)) return true;
  const escaped = path.replaceAll(/[.+?^$()|[\]\\]/g, String.raw`\$&`);
  const source = escaped
    .replaceAll("**/", "\u0000")
    .replaceAll("*", "[^/]*")
    .replaceAll("\u0000", "(?:.*/)?")
    .replaceAll(/\{([^}]*)\}/g, (_, names: string) => `(?:${names.replaceAll(",", "|")})`);
  const pattern = new RegExp(`^${source}(?:/|$)`);
  return [...tree.keys()].some((known) => pattern.test(known));
}

/** `npm run x` in a document is a script of the root package.json; so is `npm test` and its kind. */
export function missingCommands(tree: Tree): string[] {
  const { scripts } = JSON.parse(tree.get("package.json") ?? "{}") as { scripts?: Record<string, string> };
  return filesOf(tree, DOCUMENT).flatMap((file) =>
    problemsOf(file, /\bnpm (?:run ([a-z][a-z0-9:-]*)|(start|test)\b)/g, ([command, named, short]) =>
      scripts?.[named ?? short ?? ""] === undefined ? `shows \`${command}\`, which is no script` : null,
    ),
  );
}

const LENGTHS: readonly { readonly pattern: RegExp; readonly linesMax: number }[] = [
  { pattern: /^README\.md$/, linesMax: 150 },
  { pattern: /^ARCHITECTURE\.md$/, linesMax: 250 },
  { pattern: /^(?:services|packages)\/[^/]+\/README\.md$|^(?:infra|test)\/README\.md$/, linesMax: 60 },
];

/** A document that grows past its limit is no longer read. */
export function longDocuments(tree: Tree): string[] {
  return LENGTHS.flatMap(({ pattern, linesMax }) =>
    filesOf(tree, pattern).flatMap(({ path, text }) => {
      const count = text.replace(/\n$/, "").split("\n").length;
      return count > linesMax ? [`${path} has ${count} lines, more than ${linesMax}`] : [];
    }),
  );
}
