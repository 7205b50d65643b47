/** The plans file: YAML, checked whole, every problem at once with its line and field. */
import {
  type FieldIssue,
  type FileProblem,
  inOrder,
  isJsonObject,
  issuesOf,
  type JsonObject,
  readYaml,
} from "@tallyhouse/domain";
import type { z } from "zod";
import type { PlansFile } from "./plan.ts";
import { planOf } from "./plan-defaults.ts";
import { endpointPartsOf, planPartsOf } from "./plan-parts.ts";
import { planIssues } from "./plan-rules.ts";
import { PlansFileSchema } from "./plan-schema.ts";

/** The whole file, or every problem of it: never a part. */
export type PlansFileReading =
  | {
      readonly kind: "plans";
      readonly file: PlansFile;
      /** Where a field stands: for problems that only the server sees. */
      readonly at: (issue: FieldIssue) => FileProblem;
    }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

/**
 * Reads `schema: tallyhouse.plans/1` and fills in its defaults. Unknown keys are refused. Problems come in the order of their lines.
 * What needs the meters (aggregations, dimensions) is not judged here. Pure.
 */
export function parsePlansFile(text: string): PlansFileReading {
  const reading = readYaml(text);
  if (reading.kind === "problems") return reading;
  const parsed = PlansFileSchema.safeParse(reading.content);
  const content = isJsonObject(reading.content) ? reading.content : {};
  const issues = [...issuesOf(parsed.error), ...plansIssues(content)];
  if (parsed.success && issues.length === 0) return { kind: "plans", file: fileOf(parsed.data), at: reading.at };
  return { kind: "problems", problems: inOrder(issues.map(reading.at)) };
}

/** What the schema cannot see, of everything that can be read, whatever else is wrong. */
function plansIssues(content: JsonObject): FieldIssue[] {
  const { plans, defaults, endpoints } = content;
  const declared = isJsonObject(plans) ? Object.entries(plans) : [];
  const parts = new Map(declared.map(([key, plan]) => [key, planPartsOf(key, plan, defaults)]));
  const context = { endpoints: endpointPartsOf(endpoints), plans: parts };
  return [...parts].flatMap(([key, plan]) =>
    planIssues(plan, context).map(({ path, rule }) => ({ path: ["plans", key, ...path], rule })),
  );
}

function fileOf({ defaults, endpoints, bundles, plans }: z.output<typeof PlansFileSchema>): PlansFile {
  return {
    plans: Object.entries(plans).map(([key, plan]) => planOf(key, plan, defaults)),
    endpoints,
    bundles,
  };
}
