/** Lists that stand twice must agree: codes and their rows, guarantees and their tests, the environment and its schemas. */
import { codeOf, liveMatches } from "./source-text.ts";
import { filesOf, lineAt, type Tree } from "./tree.ts";

const CODES_FILE = "packages/domain/src/errors.ts";
const CODES_DOCUMENT = "docs/errors.md";
const CODE_LIST = /export const (\w+_CODES) = \[([^\]]*)\] as const/g;

/** Every code of the lists in errors.ts has one row in docs/errors.md, and every row a code. */
export function errorCodesWithoutRow(tree: Tree): string[] {
  const source = codeOf(tree.get(CODES_FILE) ?? "");
  const codes = new Set(
    [...source.matchAll(CODE_LIST)].flatMap(([, , list = ""]) =>
      [...list.matchAll(/"([A-Z0-9_]+)"/g)].map(([, code = ""]) => code),
    ),
  );
  const document = tree.get(CODES_DOCUMENT) ?? "";
  const rows = [...document.matchAll(/^\| *`([A-Z][A-Z0-9_]+)` *\|/gm)].map((match) => ({
    code: match[1] ?? "",
    line: lineAt(document, match.index),
  }));
  const known = new Set(rows.map(({ code }) => code));
  return [
    ...(codes.size === 0 ? [`${CODES_FILE} has no list of codes`] : []),
    ...[...codes].filter((code) => !known.has(code)).map((code) => `${CODES_DOCUMENT} has no row for ${code}`),
    ...rows
      .filter(({ code }) => !codes.has(code))
      .map(({ code, line }) => `${CODES_DOCUMENT}:${line} explains ${code}, which is no code`),
  ];
}

const GUARANTEES = "docs/guarantees.md";
/** A test, or a suite of contract tests, whose title begins with the numbers of guarantees. */
const TITLE = /\b(?:test|it|describe)\b[^\n"'`]*\(\s*["'`]((?:G\d+\b[ ,]*)+)/g;
const SUITES = /\.test\.ts$|^packages\/testkit\/src\/.*\.ts$|^test\/(?!tidy\/).*\.ts$/;

interface GuaranteeTitle {
  readonly guarantee: string;
  readonly path: string;
  readonly line: number;
}

/** Every test whose title begins with the number of a guarantee, sorted by path. */
function titlesOf(tree: Tree): GuaranteeTitle[] {
  return filesOf(tree, SUITES).flatMap(({ path, text }) =>
    liveMatches(text, TITLE).flatMap(({ index, 1: numbers = "" }) =>
      numbers
        .split(/[ ,]+/)
        .filter((guarantee) => guarantee !== "")
        .map((guarantee) => ({ guarantee, path, line: lineAt(text, index) })),
    ),
  );
}

/**
 * The document with the list of tests of each guarantee brought up to date: the lines after `Tests:` in a section `## G1 …`,
 * one file a line. What a person wrote stays.
 */
export function withListedTests(tree: Tree): string {
  const titles = titlesOf(tree);
  const sections = sectionsOf(tree.get(GUARANTEES) ?? "").map((section) => {
    const guarantee = /^## (G\d+)/.exec(section)?.[1];
    if (guarantee === undefined) return section.trimEnd();
    const paths = new Set(titles.filter((title) => title.guarantee === guarantee).map(({ path }) => path));
    const list = [...paths].sort().map((path) => `- \`${path}\`\n`);
    return section.replace(/^Tests:\n\n?(?:- .*\n)*/m, `Tests:\n\n${list.join("")}`).trimEnd();
  });
  return `${sections.join("\n\n")}\n`;
}

function sectionsOf(document: string): string[] {
  return document.split(/^(?=## )/m);
}

/**
 * Every guarantee of docs/guarantees.md is a heading `## G1 …` that lists exactly the files with tests of that number
 * (`npm run guarantees` writes the lists); a test that begins with a number names a guarantee that is there.
 */
export function guaranteesWithoutTest(tree: Tree): string[] {
  const document = tree.get(GUARANTEES) ?? "";
  const titles = titlesOf(tree);
  const promised = new Set(sectionsOf(document).flatMap((section) => /^## (G\d+)/.exec(section)?.[1] ?? []));
  return [
    ...(promised.size === 0 ? [`${GUARANTEES} has no guarantee`] : []),
    ...titles
      .filter(({ guarantee }) => !promised.has(guarantee))
      .map(({ guarantee, path, line }) => `${path}:${line} tests ${guarantee}, which ${GUARANTEES} does not have`),
    ...[...promised]
      .filter((guarantee) => !titles.some((title) => title.guarantee === guarantee))
      .map((guarantee) => `${GUARANTEES} has ${guarantee}, which no test holds`),
    ...(withListedTests(tree) === document
      ? []
      : [`${GUARANTEES} lists other tests than there are: npm run guarantees`]),
  ];
}

const ENVIRONMENT = ".env.example";
const VARIABLE = /^\s*([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+):/gm;

interface Variable {
  readonly name: string;
  readonly path: string;
  readonly line: number;
  readonly isDocumented: boolean;
}

/** The environment variables that the zod objects of services and packages name. */
function variablesOf(tree: Tree): Variable[] {
  return filesOf(tree, /^(?:services|packages)\/[^/]+\/src\/.*\.ts$/)
    .filter(({ path }) => !path.endsWith(".test.ts"))
    .flatMap(({ path, text, lines }) =>
      objectSchemasOf(codeOf(text)).flatMap(({ body, start }) =>
        [...body.matchAll(VARIABLE)].map((match) => {
          const line = lineAt(text, start + match.index + (match[0].length - match[0].trimStart().length));
          return { name: match[1] ?? "", path, line, isDocumented: (lines[line - 2] ?? "").trimEnd().endsWith("*/") };
        }),
      ),
    );
}

/** The arguments of z.object, z.strictObject, z.looseObject and .extend, brackets balanced. */
function objectSchemasOf(code: string): { body: string; start: number }[] {
  return [...code.matchAll(/(?:\bz\s*\.(?:object|strictObject|looseObject)|\.(?:extend|safeExtend))\(/g)].map(
    (match) => {
      const start = match.index + match[0].length;
      let depth = 1;
      let end = start;
      while (depth > 0 && end < code.length) {
        if (code[end] === "(") depth += 1;
        if (code[end] === ")") depth -= 1;
        end += 1;
      }
      return { body: code.slice(start, end), start };
    },
  );
}

/** The names of all environment variables that a schema reads. */
export function variableNamesOf(tree: Tree): ReadonlySet<string> {
  return new Set(variablesOf(tree).map(({ name }) => name));
}

/** .env.example names exactly the variables that the schemas read; a commented-out line names one too. */
export function environmentDrift(tree: Tree): string[] {
  const example = tree.get(ENVIRONMENT) ?? "";
  const shown = new Map(
    [...example.matchAll(/^#? ?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)=/gm)].map((match) => [
      match[1] ?? "",
      lineAt(example, match.index),
    ]),
  );
  const read = variablesOf(tree);
  const names = new Set(read.map(({ name }) => name));
  return [
    ...read
      .filter(({ name }, index) => !shown.has(name) && read.findIndex((other) => other.name === name) === index)
      .map(({ name, path, line }) => `${path}:${line} reads ${name}, which ${ENVIRONMENT} does not show`),
    ...[...shown]
      .filter(([name]) => !names.has(name))
      .map(([name, line]) => `${ENVIRONMENT}:${line} shows ${name}, which nothing reads`),
  ];
}

/** Every key of a configuration says what it is, in which unit. */
export function undocumentedVariables(tree: Tree): string[] {
  return variablesOf(tree)
    .filter(({ isDocumented }) => !isDocumented)
    .map(({ name, path, line }) => `${path}:${line} reads ${name} without a doc comment`);
}
