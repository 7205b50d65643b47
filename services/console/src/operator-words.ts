/** Who asks for a change and why: the words that an audit keeps. */
import { z } from "zod";

/** One line of plain text: what is written into an audit is read as a line. */
export const line = (charactersMax: number): z.ZodType<string> =>
  z
    .string({ error: "is required" })
    .trim()
    .min(1, "is required")
    .max(charactersMax, `has at most ${charactersMax} characters`)
    .refine((text) => text.isWellFormed() && !/\p{Cc}/u.test(text), "must be one line of Unicode text");

/** Why; 1 to 500 characters. */
export const ReasonSchema = line(500);

/** Who. Kept for ever, so it must be no personal datum: a user name or a role. */
export const ActorSchema = line(100).refine(
  (text) => !text.includes("@"),
  "is the name of an operator, not an e-mail address",
);
