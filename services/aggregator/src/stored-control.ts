import { MeterRuleSchema, type MeterVersion, parseInstant } from "@tallyhouse/domain";
import { z } from "zod";
import type { MeterName } from "./meter-set.ts";

/** A control record that took effect, as an open needs it; a replace is the void of its target. */
export type StoredControl =
  | { readonly kind: "meter.activate"; readonly version: MeterVersion }
  | { readonly kind: "meter.end"; readonly name: MeterName; readonly untilAt: number }
  | { readonly kind: "void"; readonly targetOffset: number }
  | { readonly kind: "stream.close"; readonly offset: number; readonly bookedAt: number };

/** Columns of `control_records`, with times and offsets as decimal text. */
export interface ControlRow {
  readonly kind: string;
  readonly target: string;
  /** The record's value; empty for corrections. */
  readonly body: string;
  readonly offsetText: string;
  readonly bookedAtText: string;
}

const NameSchema = z.object({ mode: z.enum(["live", "test"]), meter: z.string(), version: z.int() });
const ActivationSchema = NameSchema.extend({ rule: MeterRuleSchema });
const EndSchema = NameSchema.extend({
  until: z
    .string()
    .transform((text) => parseInstant(text) ?? Number.NaN)
    .pipe(z.number()),
});

/**
 * Reads a stored row back. Its signature was verified when it was folded.
 * @throws ZodError when the row is none of ours: an open must not go on without what it means.
 */
export function controlOf(row: ControlRow): StoredControl {
  switch (row.kind) {
    case "meter.activate":
      return { kind: row.kind, version: ActivationSchema.parse(JSON.parse(row.body)) };
    case "meter.end": {
      const { until, ...name } = EndSchema.parse(JSON.parse(row.body));
      return { kind: row.kind, name, untilAt: until };
    }
    case "void":
    case "replace":
      return { kind: "void", targetOffset: Number(row.target) };
    case "stream.close":
      return { kind: row.kind, offset: Number(row.offsetText), bookedAt: Number(row.bookedAtText) };
    default:
      throw new Error(`control_records holds a row of unknown kind ${row.kind}`);
  }
}
