/** Rules of source text that lint cannot see. */
import { basename } from "node:path/posix";
import { bareCodeOf, codeOf, commentsOf } from "./source-text.ts";
import { filesOf, lineAt, problemsOf, TEST_CODE, type Tree } from "./tree.ts";

const SOURCE = /\.(?:ts|mjs)$/;
const PRODUCT = /^(?:packages|services)\/[^/]+\/src\/.*\.ts$/;

function productFiles(tree: Tree): { path: string; text: string; lines: string[] }[] {
  return filesOf(tree, PRODUCT).filter(({ path }) => !TEST_CODE.test(path));
}

/** Words that say nothing without a unit. */
const BARE = "(?:timeout|size|delay|interval|duration|age|horizon|lag|ttl)";
const DECLARATION = new RegExp(
  String.raw`(?<![\w$.])(${BARE})(?:\??\s*:\s*(?:number|bigint|z\.))|` +
    String.raw`(?<![\w$])[a-z]\w*(${BARE.replaceAll(/(?<=[(|])[a-z]/g, (letter) => (letter === ":" ? letter : letter.toUpperCase()))})` +
    String.raw`\??\s*:\s*(?:number|bigint|z\.)`,
  "g",
);

/** A number named timeout, size, delay … or ending in one, without its unit behind it. */
export function bareUnits(tree: Tree): string[] {
  return productFiles(tree).flatMap((file) =>
    problemsOf({ path: file.path, text: bareCodeOf(file.text) }, DECLARATION, ([declared]) => {
      const name = declared.match(/\w+/)?.[0] ?? "";
      return `declares ${name} without a unit (${name}Ms, ${name}Bytes …)`;
    }),
  );
}

const EXPORT = /^export (?:declare )?(?:abstract )?(?:async )?(?:function\*?|const|class|interface|type) (\w+)(.*)$/gm;
/** Derived from the documented value above it, whose comment is theirs. */
const DERIVED = /^ = (?:Readonly<)?(?:z\.(?:infer|input|output)<typeof|\(typeof) /;

/** Every export of a package says what it is. */
export function undocumentedExports(tree: Tree): string[] {
  return productFiles(tree)
    .filter(({ path }) => path.startsWith("packages/"))
    .flatMap((file) =>
      [...file.text.matchAll(EXPORT)].flatMap((match) => {
        const [, name = "", rest = ""] = match;
        const line = lineAt(file.text, match.index);
        const isDocumented = (file.lines[line - 2] ?? "").trimEnd().endsWith("*/");
        // Overloads and re-declarations of a documented name have its comment.
        const isRepeated = new RegExp(String.raw`^export .*\b${name}\b`).test(file.lines[line - 2] ?? "");
        return isDocumented || isRepeated || DERIVED.test(rest)
          ? []
          : [`${file.path}:${line} exports ${name} without a doc comment`];
      }),
    );
}

const NOTE = /\b(?:TODO|FIXME|XXX)\b.*/g;

/** What is left to do is an issue, and the note links it. */
export function unlinkedNotes(tree: Tree): string[] {
  return filesOf(tree, /./).flatMap(({ path, text }) =>
    problemsOf({ path, text: SOURCE.test(path) ? commentsOf(text) : text }, NOTE, ([note]) =>
      /issues\/\d+|#\d+/.test(note) ? null : "leaves something to do without an issue",
    ),
  );
}

function commented(tree: Tree): { path: string; text: string }[] {
  return filesOf(tree, SOURCE).map(({ path, text }) => ({ path, text: commentsOf(text) }));
}

const SUPPRESSION =
  /(?:oxlint-disable|eslint-disable|@ts-expect-error|@boundaries-ignore|oxfmt-ignore|v8 ignore)[^\n]*/g;
const REASON = /(?: -- |: |@ts-expect-error |@boundaries-ignore )\S.{9,}/;

/** A check that is switched off says why, beside it. Whole-file type checks cannot be switched off at all. */
export function unreasonedSuppressions(tree: Tree): string[] {
  return commented(tree).flatMap((file) => [
    ...problemsOf(file, SUPPRESSION, ([text]) => (REASON.test(text) ? null : "switches a check off without a reason")),
    ...problemsOf(
      file,
      /@ts-(?:nocheck|ignore)\b/g,
      ([text]) => `uses ${text}: name the one error with @ts-expect-error`,
    ),
  ]);
}

/** Where a program may look at its process: the outermost file of a command, tools, tests and the programs that tests start. */
const MAY_SEE_PROCESS = /(?:^|\/)(?:main|command-line)\.ts$|^(?:infra|test)\/|\/bin\/|^vitest\.config\.ts$/;
/** What a process was given, and what ends or speaks for it. Questions to the system, such as memory in use, are no such thing. */
const PROCESS = /(?<![\w$.])process\s*(?:\.\s*(?:env|argv|exit|exitCode|cwd|chdir|on|once|stdin|stdout|stderr)\b|\[)/g;

/** The environment and the process reach everything else as arguments. */
export function processOutsideMain(tree: Tree): string[] {
  return filesOf(tree, SOURCE)
    .filter(({ path }) => !MAY_SEE_PROCESS.test(path) && !TEST_CODE.test(path))
    .flatMap((file) => [
      ...problemsOf({ path: file.path, text: codeOf(file.text) }, /from "(?:node:)?process"/g, () => "imports process"),
      ...problemsOf({ path: file.path, text: bareCodeOf(file.text) }, PROCESS, () => "uses process"),
    ]);
}

/** The only files of a service that name an adapter. */
const MAY_OPEN_ADAPTERS = /\/(?:main|ports)\.ts$/;
const ADAPTER = /\bfrom "@tallyhouse\/(eventlog|clickhouse|postgres|limits)"/g;
const FOR_TESTS =
  /\b(?:from|import\() ?"(@tallyhouse\/(?:testkit|stripe-emulator)|[^"]*(?:\/testing\/|\/fixtures\/|\/test-|\.fixture)[^"]*)"/g;

/** What turbo's tags are too coarse for: adapters only in ports.ts; the testkit, the emulator and test code only in tests. */
export function importsOutOfPlace(tree: Tree): string[] {
  return productFiles(tree).flatMap((file) => {
    const isService = file.path.startsWith("services/") || file.path.startsWith("packages/usage/");
    const isComposer = file.path.startsWith("services/standalone/");
    return [
      ...problemsOf(file, ADAPTER, ([, name]) =>
        isService && !MAY_OPEN_ADAPTERS.test(file.path)
          ? `imports the adapter ${name}: only main.ts and ports.ts may`
          : null,
      ),
      ...problemsOf(file, FOR_TESTS, ([, name = ""]) =>
        isComposer && name.endsWith("/stripe-emulator") ? null : `imports ${name}: only tests may`,
      ),
    ];
  });
}

const MAIN_LINES_MAX = 40;
const VAGUE = new Set(["utils.ts", "util.ts", "common.ts", "misc.ts", "helpers.ts", "types.ts"]);

/** File names say what is in the file, in kebab-case. */
export function badFileNames(tree: Tree): string[] {
  return filesOf(tree, /\.(?:ts|mjs|sql|py)$/).flatMap(({ path, lines }) => {
    const name = basename(path);
    if (!/^[a-z0-9]+(?:[-_.][a-z0-9]+)*$/.test(name)) return [`${path} is not named in kebab-case`];
    if (VAGUE.has(name)) return [`${path} is named for no thing`];
    const isLong = name === "main.ts" && path.startsWith("services/") && lines.length - 1 > MAIN_LINES_MAX;
    return isLong ? [`${path} has ${lines.length - 1} lines, more than ${MAIN_LINES_MAX}`] : [];
  });
}
