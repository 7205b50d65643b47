/** Reads the query parameters of the usage API into a question, or says everything that is wrong with them. */
import { ceilTo, DAY_MS, formatInstant, type Mode, parseInstant, WINDOW_MS } from "@tallyhouse/domain";
import { readZone, USAGE_WINDOWS, type UsageWindow, type Zone } from "@tallyhouse/usage";
import { z } from "zod";
import { type FieldProblem, type Problem, queryInvalid } from "./problem.ts";

/** Named limits of one usage question (edge.md §9 row 4); each is tested. */
export const USAGE_LIMITS = {
  rangeDaysMax: 400,
  rowsMax: 10_000,
  /** Usage events that one question may fold one by one: some 50 MB of payloads at their usual size. */
  eventsMax: 100_000,
  groupByMax: 3,
  customersMax: 1_000,
} as const;

/** Span of an answer whose `from` is not given. */
const DEFAULT_RANGE_MS = DAY_MS;
/** Windows are stored as seconds from 1970 in 32 bits; a day more for every zone. */
const EARLIEST_AT = Date.UTC(1970, 0, 2);
const LATEST_AT = Date.UTC(2106, 0, 1);

/** One question about usage. Dimension names are not known to exist yet: only the meter tells. */
export interface UsageRequest {
  readonly mode: Mode;
  /** null: all customers together. Only the page asks so. */
  readonly customer: string | null;
  readonly meter: string;
  readonly version: number | undefined;
  readonly fromAt: number;
  readonly toAt: number;
  readonly window: UsageWindow;
  readonly zone: Zone;
  readonly groupBy: readonly string[];
  /** Only what was known at the last cut before this instant; null: everything stored. */
  readonly knownAt: number | null;
}

/** Who uses a meter most. */
export interface CustomersRequest {
  readonly mode: Mode;
  readonly meter: string;
  readonly version: number | undefined;
  readonly fromAt: number;
  readonly toAt: number;
  readonly limit: number;
}

type Reading<Request> =
  | { readonly kind: "request"; readonly request: Request }
  | { readonly kind: "problem"; readonly problem: Problem };

/** An RFC 3339 instant that usage can have. */
export const instant = z
  .string()
  .transform((text) => parseInstant(text) ?? Number.NaN)
  .refine((at) => at >= EARLIEST_AT && at <= LATEST_AT, {
    error: "must be an RFC 3339 instant between 1970-01-02 and 2106, such as 2026-11-20T00:00:00Z (write + as %2B)",
  });
const name = z.string({ error: "is required" }).min(1, "is required").max(256, "has at most 256 characters");
const versionNumber = z.coerce.number({ error: "must be a version number" }).int().min(1).max(65_535).optional();

/** Query of `GET /v1/usage`. */
export const UsageParameters = z.strictObject({
  customer: name,
  meter: name,
  version: versionNumber,
  from: instant.optional(),
  to: instant.optional(),
  window: z.enum(USAGE_WINDOWS, { error: `must be one of ${USAGE_WINDOWS.join(", ")}` }).default("total"),
  tz: z.string().max(64).default("UTC"),
  knownAt: instant.optional(),
  groupBy: z
    .string()
    .default("")
    .transform((text) => (text === "" ? [] : [...new Set(text.split(",").map((part) => part.trim()))]))
    .refine((names) => names.length <= USAGE_LIMITS.groupByMax, `names at most ${USAGE_LIMITS.groupByMax} dimensions`),
});

/** Query of `GET /v1/usage/customers`. */
export const CustomersParameters = z.strictObject({
  meter: name,
  version: versionNumber,
  from: instant.optional(),
  to: instant.optional(),
  limit: z.coerce
    .number({ error: "must be a number" })
    .int()
    .min(1)
    .max(USAGE_LIMITS.customersMax, `must be at most ${USAGE_LIMITS.customersMax}`)
    .default(100),
});

/** Query of `POST /admin/v1/meters/check`. */
export const CheckParameters = z.strictObject({ from: instant, to: instant });

/** Reads the span of a check: any instants. */
export function readCheckSpan(query: unknown): Reading<{ readonly fromAt: number; readonly toAt: number }> {
  const parsed = CheckParameters.safeParse(query);
  if (!parsed.success) return { kind: "problem", problem: problemOf(parsed.error) };
  const { errors, ...span } = readRange({ ...parsed.data, now: 0, isAligned: false });
  return errors.length > 0 ? { kind: "problem", problem: queryInvalid(errors) } : { kind: "request", request: span };
}

/** Reads `GET /v1/usage`. Pure but for the zone data of the runtime. */
export function readUsageRequest(query: unknown, context: { mode: Mode; now: number }): Reading<UsageRequest> {
  const parsed = UsageParameters.safeParse(query);
  if (!parsed.success) return { kind: "problem", problem: problemOf(parsed.error) };
  const { from, to, tz, window, version, knownAt = null, ...rest } = parsed.data;
  const range = readRange({ from, to, now: context.now, isAligned: window !== "total" });
  const errors = [...range.errors];
  const { fromAt, toAt } = range;
  // A zone is read over the range, so only once the range is known to be sound.
  const zone = errors.length === 0 ? readZone(tz, { fromAt, toAt }) : null;
  if (zone?.kind === "refused") errors.push({ field: "tz", rule: zone.rule });
  if (zone?.kind !== "zone") return { kind: "problem", problem: queryInvalid(errors) };
  const { mode } = context;
  return { kind: "request", request: { ...rest, mode, version, window, fromAt, toAt, knownAt, zone: zone.zone } };
}

/** Reads `GET /v1/usage/customers`. Whole windows only: no edges of a thousand customers are folded from raw events. */
export function readCustomersRequest(query: unknown, context: { mode: Mode; now: number }): Reading<CustomersRequest> {
  const parsed = CustomersParameters.safeParse(query);
  if (!parsed.success) return { kind: "problem", problem: problemOf(parsed.error) };
  const { from, to, version, ...rest } = parsed.data;
  const { errors, fromAt, toAt } = readRange({ from, to, now: context.now, isAligned: true });
  if (errors.length > 0) return { kind: "problem", problem: queryInvalid(errors) };
  return { kind: "request", request: { ...rest, mode: context.mode, version, fromAt, toAt } };
}

/**
 * `[from, to)`. By default the 24 h that end with the running 15-minute window, so that what was counted a second ago is in it.
 */
function readRange(input: { from: number | undefined; to: number | undefined; now: number; isAligned: boolean }): {
  readonly fromAt: number;
  readonly toAt: number;
  readonly errors: readonly FieldProblem[];
} {
  const toAt = input.to ?? ceilTo(input.now + 1, WINDOW_MS);
  const fromAt = input.from ?? toAt - DEFAULT_RANGE_MS;
  const errors: FieldProblem[] = [];
  if (input.isAligned) {
    for (const [field, at] of [["from", fromAt] as const, ["to", toAt] as const]) {
      if (at % WINDOW_MS === 0) continue;
      const example = formatInstant(ceilTo(at, WINDOW_MS));
      errors.push({
        field,
        rule: `must be a multiple of 15 minutes, such as ${example}; only window=total takes any instant`,
      });
    }
  }
  if (fromAt >= toAt) errors.push({ field: "from", rule: `must be before to (${formatInstant(toAt)})` });
  if (toAt - fromAt > USAGE_LIMITS.rangeDaysMax * DAY_MS)
    errors.push({ field: "from", rule: `must be at most ${USAGE_LIMITS.rangeDaysMax} days before to` });
  return { fromAt, toAt, errors };
}

function problemOf(error: z.ZodError): Problem {
  return queryInvalid(
    error.issues.flatMap((issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => ({ field: key, rule: "is no parameter of this request" }))
        : [{ field: issue.path.join("."), rule: issue.message }],
    ),
  );
}
