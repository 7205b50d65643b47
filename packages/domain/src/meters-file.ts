/** The meters file: YAML, checked whole, every problem at once with its line. */
import { z } from "zod";
import { isJsonObject } from "./json.ts";
import { type DeclaredMeter, DeclaredMeterSchema } from "./meter.ts";
import { type FieldIssue, type FileProblem, inOrder, issuesOf, readYaml } from "./yaml-file.ts";

const METERS_MAX = 1_000;

const MetersFileSchema = z.strictObject({
  schema: z.literal("tallyhouse.meters/1"),
  meters: z.array(DeclaredMeterSchema).max(METERS_MAX),
});

/** Every rule of the file, or every problem of it: never a part. */
export type MetersFileReading =
  | { readonly kind: "meters"; readonly rules: readonly DeclaredMeter[] }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

/** Reads `schema: tallyhouse.meters/1`. Unknown keys are refused. Problems come in the order of their lines. Pure. */
export function parseMetersFile(text: string): MetersFileReading {
  const reading = readYaml(text);
  if (reading.kind === "problems") return reading;
  const parsed = MetersFileSchema.safeParse(reading.content);
  const issues = [...repeatedKeys(reading.content), ...issuesOf(parsed.error)];
  if (parsed.success && issues.length === 0) return { kind: "meters", rules: parsed.data.meters };
  return { kind: "problems", problems: inOrder(issues.map(reading.at)) };
}

/** Looked for in the content as written, so that a meter declared twice is reported beside every other problem. */
function repeatedKeys(content: unknown): FieldIssue[] {
  const meters = isJsonObject(content) && Array.isArray(content["meters"]) ? (content["meters"] as unknown[]) : [];
  const seen = new Map<unknown, number>();
  const issues: FieldIssue[] = [];
  for (const [index, meter] of meters.entries()) {
    const key = isJsonObject(meter) ? meter["key"] : undefined;
    if (typeof key !== "string") continue;
    const first = seen.get(key);
    if (first === undefined) seen.set(key, index);
    else issues.push({ path: ["meters", index, "key"], rule: `"${key}" is declared twice; first as meters[${first}]` });
  }
  return issues;
}
