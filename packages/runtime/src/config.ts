import { TallyhouseError } from "@tallyhouse/domain";
import type { z } from "zod";

/** Environment variables as handed in by main: nothing else reads the process. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Parses environment variables once, at start. Variables the schema does not name are ignored; empty text counts as absent.
 * @throws {TallyhouseError} CONFIG_INVALID naming every wrong variable at once, so that one restart fixes all.
 */
export function parseConfig<Schema extends z.ZodType>(schema: Schema, env: Environment): z.infer<Schema> {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new TallyhouseError({
    code: "CONFIG_INVALID",
    action: "halt",
    message: `configuration: ${problems.join("; ")}`,
  });
}
