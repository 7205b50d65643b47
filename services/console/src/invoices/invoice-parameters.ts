/** What may be asked of statements: the query parameters of `/v1/invoices…` and their cursors. */
import { floorTo, formatInstant, parseInstant, WINDOW_MS } from "@tallyhouse/domain";
import type { EventPlace } from "@tallyhouse/usage";
import { z } from "zod";
import { IdentityPartsSchema } from "../raw-rows.ts";

/** Named limits of these answers. */
export const INVOICE_LIMITS = {
  statementsMax: 100,
  eventsMax: 10_000,
  /** Reads of one page of usage events: an item that takes few of its meter's must not hold up an answer. */
  eventReadsMax: 3,
  /** Windows of one page: 31 days, and one that the period cuts on both sides, so a month is one page. */
  windowsMax: 2_977,
  /** Usage events folded for one page of windows: those of the two windows that the period cuts, and of corrected ones that do not add up. */
  foldedEventsMax: 20_000_000,
} as const;

const { customer } = IdentityPartsSchema.shape;
const line = z.string().min(1, "names a line").max(256, "has at most 256 characters");
const pageSize = (most: number, usual: number) =>
  z.coerce
    .number({ error: "must be a number" })
    .int("must be whole")
    .min(1, "must be at least 1")
    .max(most, `must be at most ${most}`)
    .default(usual);
const instant = z
  .string()
  .transform((text) => parseInstant(text) ?? Number.NaN)
  .refine((at) => !Number.isNaN(at), "must be an RFC 3339 instant such as 2026-11-01T00:00:00Z");
const format = z.enum(["json", "csv"], { error: "must be json or csv" }).default("json");

/** Query of `GET /v1/invoices`. `before`: statements of periods that begin earlier. */
export const InvoicesParameters = z.strictObject({
  customer,
  before: instant.optional(),
  limit: pageSize(INVOICE_LIMITS.statementsMax, 25),
});

/** Query of `GET /v1/invoices/{id}/explain`. */
export const ExplainParameters = z
  .strictObject({
    customer: customer.optional(),
    line: line.optional(),
    window: z.union([z.literal("all"), instant]).optional(),
    cursor: z.string().max(100).optional(),
    limit: pageSize(INVOICE_LIMITS.eventsMax, 1_000),
    format,
  })
  .superRefine(({ line: key, window, cursor }, context) => {
    const refuse = (field: string, message: string): void =>
      context.addIssue({ code: "custom", path: [field], message });
    if (window !== undefined && key === undefined) refuse("window", "needs a line");
    if (cursor === undefined) return;
    if (key === undefined) refuse("cursor", "needs a line");
    else if ((window === undefined ? windowsCursor(cursor) : eventsCursor(cursor)) === null)
      refuse("cursor", "must be the next of an answer to the same question");
  });
export type ExplainQuery = z.infer<typeof ExplainParameters>;

/** Query of `GET /v1/invoices/{id}/export`. */
export const ExportParameters = z.strictObject({ customer: customer.optional() });

/** Where the next page of windows begins: a window's start. Null for what is none. */
export function windowsCursor(text: string): number | null {
  const at = parseInstant(text);
  return at !== null && at % WINDOW_MS === 0 ? at : null;
}

const PLACE = /^(\d{1,15})\.(\d{1,5})\.(\d{1,5})\.(\d{1,15})$/;

/** The place behind which the next page of usage events begins. Null for what is none. */
export function eventsCursor(text: string): EventPlace | null {
  const [, occurredAt, stream, partition, offset] = PLACE.exec(text) ?? [];
  if (offset === undefined) return null;
  return {
    occurredAt: Number(occurredAt),
    stream: Number(stream),
    partition: Number(partition),
    offset: Number(offset),
  };
}

/** The inverse of {@link eventsCursor}. */
export function eventsCursorText({ occurredAt, stream, partition, offset }: EventPlace): string {
  return `${occurredAt}.${stream}.${partition}.${offset}`;
}

/** A stretch of a period. */
export interface Span {
  readonly fromAt: number;
  readonly toAt: number;
}

/** The window that begins there, cut to the period; null when none does. */
export function windowOf(startAt: number, period: Span): Span | null {
  if (startAt < period.fromAt || startAt >= period.toAt) return null;
  const wholeAt = floorTo(startAt, WINDOW_MS);
  if (Math.max(wholeAt, period.fromAt) !== startAt) return null;
  return { fromAt: startAt, toAt: Math.min(wholeAt + WINDOW_MS, period.toAt) };
}

/** Half-open, as answers write it. */
export function spanView({ fromAt, toAt }: Span): { readonly start: string; readonly end: string } {
  return { start: formatInstant(fromAt), end: formatInstant(toAt) };
}
