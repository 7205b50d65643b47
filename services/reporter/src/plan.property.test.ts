import { DAY_MS, HOUR_MS, MINUTE_MS, quantityFromScaled } from "@tallyhouse/domain";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { identifierOf, idempotencyKeyOf } from "./identifier.ts";
import { PLAN_AGE_MAX_MS, planBucket } from "./plan-bucket.ts";
import { splitQuantity } from "./split-quantity.ts";

const NOW_AT = Date.UTC(2026, 10, 20, 10);
const MONTH = { periodStartAt: Date.UTC(2026, 10, 1), periodEndAt: Date.UTC(2026, 11, 1) };

interface Row {
  readonly eventAt: number;
  readonly seq: number;
  readonly quantity: bigint;
  isLive: boolean;
}

/** A step of a bucket's life: its total changes, rows leave R (void, expired), it is planned. */
const step = fc.oneof(
  fc.record({ kind: fc.constant("total" as const), delta: fc.bigInt({ min: -(10n ** 27n), max: 10n ** 27n }) }),
  fc.record({ kind: fc.constant("retire" as const), index: fc.nat() }),
  fc.record({ kind: fc.constant("plan" as const) }),
);

function plan(rows: Row[], total: bigint, bucketAt: number) {
  const taken = new Map<number, number>();
  for (const row of rows) taken.set(row.eventAt, Math.max(row.seq, taken.get(row.eventAt) ?? 0));
  const result = planBucket(
    {
      startAt: bucketAt,
      endAt: bucketAt + HOUR_MS,
      ...MONTH,
      total: quantityFromScaled(total),
      reported: sumOf(rows),
      taken,
    },
    NOW_AT,
  );
  if (result.kind === "rows") rows.push(...result.pieces.map((piece) => ({ ...piece, isLive: true })));
  return result;
}

const sumOf = (rows: readonly Row[]): bigint => rows.reduce((sum, row) => (row.isLive ? sum + row.quantity : sum), 0n);

describe("planning a bucket", () => {
  it("G5 after any changes and rounds the live rows add up to the total, and no two rows own one slot", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const bucketAt = NOW_AT - 5 * HOUR_MS;
        const rows: Row[] = [];
        let total = 0n;
        for (const given of steps) {
          if (given.kind === "total") total += given.delta;
          const row = given.kind === "retire" ? rows[given.index % Math.max(1, rows.length)] : undefined;
          if (row !== undefined) row.isLive = false;
          if (given.kind === "plan") plan(rows, total, bucketAt);
        }
        // 10^27 in at most 5 rows of 10^24 a round.
        for (let round = 0; round < 30_000 && plan(rows, total, bucketAt).kind === "rows"; round += 1);
        expect(sumOf(rows)).toBe(total);
        expect(new Set(rows.map((row) => `${row.eventAt}/${row.seq}`)).size).toBe(rows.length);
        for (const row of rows) {
          expect(row.eventAt % MINUTE_MS).toBe(0);
          expect(row.eventAt).toBeGreaterThanOrEqual(bucketAt);
          expect(row.eventAt).toBeLessThan(bucketAt + HOUR_MS);
          // Only a bucket whose 60 minutes are all owned shares one, and then its last.
          const lastAt = bucketAt + HOUR_MS - MINUTE_MS;
          expect(row.seq === 0 || row.eventAt === lastAt).toBe(true);
        }
      }),
      { numRuns: 60 },
    );
  });

  it("nothing is planned in a minute that is 34 days old, or ahead of the clock", () => {
    const agesMs = fc.integer({ min: -2 * HOUR_MS, max: 36 * DAY_MS });
    fc.assert(
      fc.property(agesMs, fc.bigInt({ min: 1n, max: 10n ** 30n }), (ageMs, total) => {
        const bucketAt = Math.floor((NOW_AT - ageMs) / HOUR_MS) * HOUR_MS;
        const period = new Date(bucketAt);
        const bucket = {
          startAt: bucketAt,
          endAt: bucketAt + HOUR_MS,
          periodStartAt: Date.UTC(period.getUTCFullYear(), period.getUTCMonth()),
          periodEndAt: Date.UTC(period.getUTCFullYear(), period.getUTCMonth() + 1),
          total: quantityFromScaled(total),
          reported: 0n,
          taken: new Map<number, number>(),
        };
        const result = planBucket(bucket, NOW_AT);
        const hasMinute = bucketAt <= NOW_AT && bucketAt + HOUR_MS - MINUTE_MS > NOW_AT - PLAN_AGE_MAX_MS;
        expect(result.kind === "rows").toBe(hasMinute);
        const pieces = result.kind === "rows" ? result.pieces : [];
        for (const piece of pieces) {
          expect(piece.eventAt).toBeGreaterThan(NOW_AT - PLAN_AGE_MAX_MS);
          expect(piece.eventAt).toBeLessThanOrEqual(NOW_AT);
        }
      }),
    );
  });

  it("a bucket without a difference gets no row", () => {
    expect(plan([], 0n, NOW_AT - HOUR_MS)).toEqual({ kind: "even" });
  });
});

describe("cutting a difference into values", () => {
  it("G4 pieces have at most 15 digits, the quantity's sign and its sum", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(10n ** 29n), max: 10n ** 29n }), (quantity) => {
        const pieces = splitQuantity(quantity, 200_000);
        expect(pieces.reduce((sum, piece) => sum + piece, 0n)).toBe(quantity);
        for (const piece of pieces.slice(-3)) {
          const digits = decimalText(piece).replace(/[-.]/g, "").replace(/^0+/, "");
          expect(digits.length).toBeLessThanOrEqual(15);
          expect(piece > 0n).toBe(quantity > 0n);
        }
      }),
      { numRuns: 40 },
    );
  });
});

/** The dullest way to write a scaled quantity. */
function decimalText(scaled: bigint): string {
  const digits = (scaled < 0n ? -scaled : scaled).toString().padStart(10, "0");
  return `${digits.slice(0, -9)}.${digits.slice(-9)}`.replace(/0+$/, "").replace(/\.$/, "");
}

describe("identifiers", () => {
  const identity = {
    mode: "test" as const,
    stripeAccount: "emulator",
    eventName: "th_tokens_v1",
    stripeCustomerId: "cus_1",
    eventAt: Date.UTC(2026, 10, 20, 9, 1),
    seq: 0,
  };

  it("G2 an identifier is a function of the slot: known answer, within Stripe's 100 characters", () => {
    expect(identifierOf(identity)).toMatch(/^th1_[a-z2-7]{40}$/);
    expect(identifierOf({ ...identity })).toBe(identifierOf(identity));
    // printf '%s' '[1,"test","emulator","th_tokens_v1","cus_1",1795165260,0]' | sha256sum | xxd -r -p | base32
    expect(identifierOf(identity)).toBe("th1_mufhgokco75gnwif447cyjavyjqigwcxvi4tmxqc");
  });

  it("every part of the slot changes it", () => {
    const others = [
      { ...identity, mode: "live" as const },
      { ...identity, stripeAccount: "stripe" },
      { ...identity, eventName: "th_tokens_v2" },
      { ...identity, stripeCustomerId: "cus_2" },
      { ...identity, eventAt: identity.eventAt + MINUTE_MS },
      { ...identity, seq: 1 },
    ];
    expect(new Set([identity, ...others].map((it) => identifierOf(it))).size).toBe(7);
  });

  it("the key changes with the epoch only", () => {
    expect(idempotencyKeyOf("th1_x", 0)).toBe("th1_x");
    expect(idempotencyKeyOf("th1_x", 2)).toBe("th1_x.e2");
  });
});
