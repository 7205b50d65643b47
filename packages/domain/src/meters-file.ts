/** The meters file: YAML, checked whole, every problem at once with its line. */
import { isMap, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { z } from "zod";
import { type MeterRule, MeterRuleSchema } from "./meter.ts";

const METERS_MAX = 1_000;

const MetersFileSchema = z.strictObject({
  schema: z.literal("tallyhouse.meters/1"),
  meters: z.array(MeterRuleSchema).max(METERS_MAX),
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
  | { readonly kind: "meters"; readonly rules: readonly MeterRule[] }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

/** Reads `schema: tallyhouse.meters/1`. Unknown keys are refused. Pure. */
export function parseMetersFile(text: string): MetersFileReading {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, maxAliasCount: 100 } as never);
  if (document.errors.length > 0) {
    return {
      kind: "problems",
      problems: document.errors.map((error) => ({
        line: lines.linePos(error.pos[0]).line,
        field: "",
        rule: error.message.split("\n")[0] ?? "",
      })),
    };
  }
  const lineOf = (path: readonly PropertyKey[]): number => {
    let node: Node | null = document.contents;
    let line = 1;
    for (const step of path) {
      if (node?.range) line = lines.linePos(node.range[0]).line;
      if (isMap(node)) {
        const pair = node.items.find(
          (item) => String((item.key as { value?: unknown } | null)?.value) === String(step),
        );
        const key = pair?.key as Node | undefined;
        if (key?.range) line = lines.linePos(key.range[0]).line;
        node = (pair?.value as Node | undefined) ?? null;
      } else if (isSeq(node)) {
        node = (node.items[Number(step)] as Node | undefined) ?? null;
        if (node?.range) line = lines.linePos(node.range[0]).line;
      } else break;
    }
    return line;
  };
  const parsed = MetersFileSchema.safeParse(document.toJS());
  if (!parsed.success) {
    return {
      kind: "problems",
      problems: parsed.error.issues.map((issue) => ({
        line: lineOf(issue.path),
        field: fieldOf(issue.path),
        rule: issue.message,
      })),
    };
  }
  const seen = new Map<string, number>();
  const problems: FileProblem[] = [];
  for (const [index, rule] of parsed.data.meters.entries()) {
    const first = seen.get(rule.key);
    if (first === undefined) seen.set(rule.key, index);
    else
      problems.push({
        line: lineOf(["meters", index, "key"]),
        field: `meters[${index}].key`,
        rule: `"${rule.key}" is declared twice; first as meters[${first}]`,
      });
  }
  return problems.length > 0 ? { kind: "problems", problems } : { kind: "meters", rules: parsed.data.meters };
}

function fieldOf(path: readonly PropertyKey[]): string {
  return path
    .map((step, i) => (typeof step === "number" ? `[${step}]` : `${i === 0 ? "" : "."}${String(step)}`))
    .join("");
}
