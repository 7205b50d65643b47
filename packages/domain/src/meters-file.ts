/** The meters file: YAML, checked whole, every problem at once with its line. */
import { isMap, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { z } from "zod";
import { isJsonObject } from "./json.ts";
import { type DeclaredMeter, DeclaredMeterSchema } from "./meter.ts";

const METERS_MAX = 1_000;
/** Aliases that one file may resolve, counted with what each repeats: a small file cannot unfold into gigabytes. */
const ALIASES_MAX = 1_000;

const MetersFileSchema = z.strictObject({
  schema: z.literal("tallyhouse.meters/1"),
  meters: z.array(DeclaredMeterSchema).max(METERS_MAX),
});

/** One problem of a file. Lines count from 1. */
export interface FileProblem {
  readonly line: number;
  /** Dotted path of the field, such as `meters[0].value`; empty for the file itself. */
  readonly field: string;
  readonly rule: string;
}

/** Every rule of the file, or every problem of it: never a part. */
export type MetersFileReading =
  | { readonly kind: "meters"; readonly rules: readonly DeclaredMeter[] }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

type Path = readonly PropertyKey[];

/** Reads `schema: tallyhouse.meters/1`. Unknown keys are refused. Problems come in the order of their lines. Pure. */
export function parseMetersFile(text: string): MetersFileReading {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  if (document.errors.length > 0) {
    return problemsOf(
      document.errors.map((error) => ({
        line: lines.linePos(error.pos[0]).line,
        field: "",
        rule: error.message.split("\n")[0] ?? "",
      })),
    );
  }
  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    return problemsOf([{ line: 1, field: "", rule: error.message }]);
  }
  const at = (path: Path, rule: string): FileProblem => ({
    line: lineOf(path, document.contents, lines),
    field: fieldOf(path),
    rule,
  });
  const problems = repeatedKeys(content, at);
  const parsed = MetersFileSchema.safeParse(content);
  for (const issue of parsed.error?.issues ?? []) {
    if (issue.code !== "unrecognized_keys") problems.push(at(issue.path, issue.message));
    else for (const name of issue.keys) problems.push(at([...issue.path, name], "is not a known key"));
  }
  return parsed.success && problems.length === 0 ? { kind: "meters", rules: parsed.data.meters } : problemsOf(problems);
}

function problemsOf(problems: readonly FileProblem[]): MetersFileReading {
  return { kind: "problems", problems: [...problems].sort((a, b) => a.line - b.line) };
}

/** Looked for in the content as written, so that a meter declared twice is reported beside every other problem. */
function repeatedKeys(content: unknown, at: (path: Path, rule: string) => FileProblem): FileProblem[] {
  const meters = isJsonObject(content) && Array.isArray(content["meters"]) ? (content["meters"] as unknown[]) : [];
  const seen = new Map<unknown, number>();
  const problems: FileProblem[] = [];
  for (const [index, meter] of meters.entries()) {
    const key = isJsonObject(meter) ? meter["key"] : undefined;
    if (typeof key !== "string") continue;
    const first = seen.get(key);
    if (first === undefined) seen.set(key, index);
    else problems.push(at(["meters", index, "key"], `"${key}" is declared twice; first as meters[${first}]`));
  }
  return problems;
}

/** The line of the deepest node on the path that the file holds. */
function lineOf(path: Path, root: Node | null, lines: LineCounter): number {
  const lineAt = (node: Node | null | undefined): number | null =>
    node?.range ? lines.linePos(node.range[0]).line : null;
  let node = root;
  let line = lineAt(node) ?? 1;
  for (const step of path) {
    if (isMap<Node | null, Node | null>(node)) {
      const pair = node.items.find((item) => String((item.key as { value?: unknown } | null)?.value) === String(step));
      line = lineAt(pair?.key) ?? line;
      node = pair?.value ?? null;
    } else if (isSeq<Node>(node)) {
      node = node.items[Number(step)] ?? null;
      line = lineAt(node) ?? line;
    } else break;
  }
  return line;
}

function fieldOf(path: Path): string {
  return path
    .map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`))
    .join("");
}
