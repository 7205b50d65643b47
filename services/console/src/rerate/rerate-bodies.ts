/** What may be asked about rating a closed period anew. */
import { z } from "zod";
import { ActorSchema, ReasonSchema } from "../operator-words.ts";

const PLAN_RULE = "must be a plan version such as pro@4";

/** Body of `POST /admin/v1/invoices/{id}/rerate`. */
export const RerateBodySchema = z.strictObject({
  plan: z
    .string({ error: PLAN_RULE })
    .regex(/^[a-z][a-z0-9_]{0,62}@[1-9]\d{0,8}$/, PLAN_RULE)
    .optional()
    .describe("default: the plan of the period's newest statement"),
  meterVersions: z
    .record(
      z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, "must be the key of a meter"),
      z.int("must be a version, a whole number").min(1).max(65_535),
    )
    .optional()
    .describe("meter → version; default: those of the plan"),
  reason: ReasonSchema,
  actor: ActorSchema,
});
export type RerateBody = z.output<typeof RerateBodySchema>;
