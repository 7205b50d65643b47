/** YAML files that people write: read whole, and every problem told with its line and field. */
import { isMap, isSeq, LineCounter, type Node, parseDocument, visit } from "yaml";
import type { z } from "zod";

/** Aliases that one file may resolve, counted with what each repeats: a small file cannot unfold into gigabytes. */
const ALIASES_MAX = 1_000;

/** One problem of a file. Lines count from 1. */
export interface FileProblem {
  readonly line: number;
  /** Dotted path of the field, such as `meters[0].value`; empty for the file itself. */
  readonly field: string;
  readonly rule: string;
}

/** Steps from the root of a file to a field: names and indices. */
export type FieldPath = readonly PropertyKey[];

/** A wrong field, before anybody asked for its line. */
export interface FieldIssue {
  readonly path: FieldPath;
  readonly rule: string;
}

/** The content of a file, and where in it a field stands; or why it cannot be read at all. */
export type YamlReading =
  | {
      readonly kind: "content";
      readonly content: unknown;
      /** The problem with the line of the deepest node on the path that the file holds. */
      readonly at: (issue: FieldIssue) => FileProblem;
    }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

/** Reads one YAML document, aliases and all. Names are unique at each level, and `__proto__` is none. Pure. */
export function readYaml(text: string): YamlReading {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const lineAt = (offset: number): number => lines.linePos(offset).line;
  if (document.errors.length > 0) {
    const problems = document.errors.map((error) => ({
      line: lineAt(error.pos[0]),
      field: "",
      rule: error.message.split("\n")[0] ?? "",
    }));
    return { kind: "problems", problems: inOrder(problems) };
  }
  const forbidden: FileProblem[] = [];
  visit(document, {
    Pair(_key, { key }) {
      const node = key as (Node & { value?: unknown }) | null;
      // Schemas of names pass over it in silence.
      if (node?.value === "__proto__")
        forbidden.push({ line: lineAt(node.range?.[0] ?? 0), field: "__proto__", rule: "is not a known key" });
    },
  });
  if (forbidden.length > 0) return { kind: "problems", problems: inOrder(forbidden) };
  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    return { kind: "problems", problems: [{ line: 1, field: "", rule: error.message }] };
  }
  const at = ({ path, rule }: FieldIssue): FileProblem => ({
    line: lineOf(path, document.contents, lineAt),
    field: fieldOf(path),
    rule,
  });
  return { kind: "content", content, at };
}

/** Problems in the order of their lines. */
export function inOrder(problems: readonly FileProblem[]): FileProblem[] {
  return [...problems].sort((a, b) => a.line - b.line);
}

/** What a schema complains of, field by field: each unknown key on its own, of alternatives the one that was meant. */
export function issuesOf(error: z.ZodError | undefined): FieldIssue[] {
  return (error?.issues ?? []).flatMap((issue) => flatIssue(issue, []));
}

function flatIssue(issue: z.core.$ZodIssue, parent: FieldPath): FieldIssue[] {
  const path = [...parent, ...issue.path];
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((name) => ({ path: [...path, name], rule: "is not a known key" }));
  if (issue.code === "invalid_key") return [{ path, rule: issue.issues[0]?.message ?? issue.message }];
  if (issue.code !== "invalid_union") return [{ path, rule: issue.message }];
  // A branch that complains of something inside the value took the value for its own.
  const meant = issue.errors.find((branch) => branch.every((each) => each.path.length > 0 || hasKeys(each)));
  if (meant === undefined || meant.length === 0) return [{ path, rule: issue.message }];
  return meant.flatMap((each) => flatIssue(each, path));
}

function hasKeys(issue: z.core.$ZodIssue): boolean {
  return issue.code === "unrecognized_keys";
}

/** The line of the deepest node on the path that the file holds. */
function lineOf(path: FieldPath, root: Node | null, lineAt: (offset: number) => number): number {
  const lineOfNode = (node: Node | null | undefined): number | null => (node?.range ? lineAt(node.range[0]) : null);
  let node = root;
  let line = lineOfNode(node) ?? 1;
  for (const step of path) {
    if (isMap<Node | null, Node | null>(node)) {
      const pair = node.items.find((item) => String((item.key as { value?: unknown } | null)?.value) === String(step));
      line = lineOfNode(pair?.key) ?? line;
      node = pair?.value ?? null;
    } else if (isSeq<Node>(node)) {
      node = node.items[Number(step)] ?? null;
      line = lineOfNode(node) ?? line;
    } else break;
  }
  return line;
}

/** A path as text: names with dots between them, indices in brackets. */
export function fieldOf(path: FieldPath): string {
  return path
    .map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`))
    .join("");
}
