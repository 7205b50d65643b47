/** Statements: what a period was billed, as one document whose digest anybody can recompute. docs/statements.md describes it. */
import { createHash } from "node:crypto";
import { type Aggregation, canonicalJson, formatInstant, type Mode } from "@tallyhouse/domain";
import type { Interval } from "@tallyhouse/plans";
import type { BillLine, DecimalText, RatedPlan } from "@tallyhouse/pricing";

/** What was counted for one item as known at the cut. */
export interface StatementTotal {
  readonly item: string;
  readonly quantity: DecimalText;
  readonly credits: DecimalText;
  /** Usage events that the quantity was made of, and the digest of them in their order. */
  readonly events: number;
  readonly eventsDigest: string;
}

/** How a meter version joins its usage events; dimensions in the order of `dims`. */
export interface StatementRule {
  readonly meter: string;
  readonly version: number;
  readonly aggregation: Aggregation;
  readonly dimensions: readonly string[];
}

/** Three figures of one line. */
export interface LineFigures {
  readonly quantity: DecimalText;
  readonly billable: DecimalText;
  readonly amount: DecimalText;
}

/** What an adjustment changes in one line; null where the line is in one of the two plans only. */
export interface LineDifference {
  readonly key: string;
  readonly before: LineFigures | null;
  readonly after: LineFigures | null;
  /** After less before, nothing being 0. */
  readonly difference: LineFigures;
}

/** Lines that differ, in the order of the lines after, then those that are gone. */
export interface StatementDifference {
  readonly lines: readonly LineDifference[];
  readonly total: DecimalText;
  readonly totalMinor: string;
}

/** A period and the calendar that it is of: its end is the anchor's first boundary behind its start, unless it was cut short. */
export interface StatementPeriod {
  readonly start: string;
  readonly end: string;
  readonly anchor: string;
  readonly interval: Interval;
  /** Another assignment began before the boundary. */
  readonly isCutShort: boolean;
}

/**
 * A statement: plan, totals and lines of one period as known at its cut. Instants are RFC 3339, decimals text. An adjustment (seq > 0)
 * states the whole period anew, and the difference to the statement before it.
 */
export interface StatementDocument {
  readonly schema: "tallyhouse.statement/1";
  readonly id: string;
  readonly mode: Mode;
  readonly customer: string;
  readonly seq: number;
  readonly previous: { readonly id: string; readonly digest: string } | null;
  readonly period: StatementPeriod;
  /** What the cut follows from: the period's end, this much later, rounded up to the stream's booking window. */
  readonly closing: { readonly latenessSeconds: number; readonly bookingWindowSeconds: number };
  readonly cut: string;
  /** Per partition of the stream, how many records were booked before the cut. */
  readonly versionVector: { readonly stream: number; readonly offsets: readonly number[] };
  readonly plan: RatedPlan;
  /** Of every meter version of the plan's items, by meter and version. */
  readonly rules: readonly StatementRule[];
  /** One per item, in the order of the plan. */
  readonly totals: readonly StatementTotal[];
  readonly lines: readonly BillLine[];
  readonly total: DecimalText;
  readonly totalMinor: string;
  readonly difference: StatementDifference | null;
  /** Why and by whom an operator had it rated anew; null otherwise. */
  readonly reason: string | null;
  readonly actor: string | null;
}

/** The text that is stored and digested: canonical JSON (sorted names, no space), no newline at its end. */
export function statementText(document: StatementDocument): string {
  return canonicalJson(document);
}

/** SHA-256 of the text in UTF-8, in hex. */
export function statementDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
const ID_CHARACTERS = 26;

/** `st_` and 26 characters of SHA-256 in lower-case base32: the same for every attempt to seal one period. */
export function statementId(of: {
  readonly mode: Mode;
  readonly customer: string;
  readonly periodStartAt: number;
  readonly seq: number;
}): string {
  const name = canonicalJson([of.mode, of.customer, formatInstant(of.periodStartAt), of.seq]);
  const bits = [...createHash("sha256").update(name).digest()]
    .map((byte) => byte.toString(2).padStart(8, "0"))
    .join("");
  const characters = Array.from({ length: ID_CHARACTERS }, (_, index) => {
    const five = bits.slice(5 * index, 5 * index + 5);
    return BASE32.charAt(Number.parseInt(five, 2));
  });
  return `st_${characters.join("")}`;
}
