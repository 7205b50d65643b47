import { createHash } from "node:crypto";
import { HOUR_MS } from "@tallyhouse/domain";
import { meterVersion, quantity } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cutOf,
  lateUsage,
  readSeal,
  readSealedTotals,
  readVersionVector,
  sealDigest,
  sealText,
  type SealedTotals,
} from "./seal.ts";
import { instant, openTestAnalytics, TestLog } from "./test-log.ts";

const DAY = instant("2026-11-20T00:00:00Z");
const STREAM = { streamId: 1, partitionCount: 2, bookingWindowSeconds: 900 };
const meter = meterVersion({ meter: "tokens", rule: { value: "/v" } });
const NAME = { mode: "live", meter: "tokens", version: 1 } as const;

let world: Awaited<ReturnType<typeof openTestAnalytics>>;

beforeAll(async () => {
  world = await openTestAnalytics();
});
afterAll(() => world.close());

describe("a cut", () => {
  it("is the start of a booking window", () => {
    expect(cutOf(DAY + 899_999, STREAM)).toBe(DAY);
    expect(cutOf(DAY + 900_000, STREAM)).toBe(DAY + 900_000);
    expect(cutOf(DAY + 7_000, { bookingWindowSeconds: 5 })).toBe(DAY + 5_000);
  });

  it("G3: is sealed when the slowest partition has passed it and no earlier activation lacks its backfill", async () => {
    const log = new TestLog(world.store, STREAM);
    const stateOf = async (cutAt: number): Promise<unknown> => {
      const state = await readSeal(world.store, STREAM, { ...NAME, cutAt });
      return state.kind === "sealed" ? "sealed" : [state.reason, state.watermarkAt];
    };
    expect(await stateOf(DAY)).toEqual(["watermark", null]);
    const usage = { mode: "live", customer: "acme", occurredAt: DAY - 1_000, data: { v: "2.5" } } as const;
    log.append(0, DAY - 1_000, { kind: "usage", usage });
    log.append(0, DAY + HOUR_MS, { kind: "meter.activate", version: meter });
    log.append(1, DAY + HOUR_MS, { kind: "meter.activate", version: meter });
    log.append(0, DAY + 3 * HOUR_MS, { kind: "tick" });
    log.append(1, DAY + 2 * HOUR_MS, { kind: "tick" });
    await log.store();
    expect(await stateOf(DAY + 2 * HOUR_MS + 900_000)).toEqual(["watermark", DAY + 2 * HOUR_MS]);
    expect(await stateOf(DAY + 2 * HOUR_MS)).toEqual(["backfill", DAY + 2 * HOUR_MS]);
    // The activation is booked at this very cut: as known before it, there is none.
    expect(await stateOf(DAY + HOUR_MS)).toBe("sealed");
    const question = { ...NAME, customer: "acme", fromAt: DAY - 2_000, toAt: DAY, groupBy: [] };
    expect(await readSealedTotals(world.store, STREAM, { ...question, cutAt: DAY + HOUR_MS })).toEqual({
      kind: "unknown",
    });
    await log.backfill(0, meter);
    expect(await stateOf(DAY + 2 * HOUR_MS)).toEqual(["backfill", DAY + 2 * HOUR_MS]);
    await log.backfill(1, meter);
    expect(await stateOf(DAY + 2 * HOUR_MS)).toBe("sealed");
    expect(await readSealedTotals(world.store, STREAM, { ...question, cutAt: DAY + 2 * HOUR_MS })).toMatchObject({
      totals: { groups: [{ group: [], quantity: quantity("2.5") }] },
    });
    expect(await readVersionVector(world.store, STREAM, DAY + 2 * HOUR_MS)).toEqual([2, 1]);
    expect(await readVersionVector(world.store, STREAM, DAY)).toEqual([1, 0]);
    const long = { ...STREAM, streamId: 77 };
    expect(await readVersionVector(world.store, long, DAY)).toEqual([0, 0]);
  });
});

const totals = (cutAt: number, groups: readonly (readonly [string, string])[], customer = "acme"): SealedTotals => ({
  ...{ ...NAME, customer, fromAt: DAY, toAt: DAY + HOUR_MS, cutAt, groupBy: ["region"] },
  groups: groups.map(([region, text]) => ({ group: [region], quantity: quantity(text) })),
});

describe("the digest", () => {
  const [first, second] = [totals(DAY, [["eu", "1.5"]]), totals(DAY, [["us", "-2"]], "b\n")];

  it("is the SHA-256 of a text that anybody can write", () => {
    const lines = [
      '{"customer":"acme","from":"2026-11-20T00:00:00Z","groupBy":["region"],"groups":[["eu","1.5"]],"knownAt":"2026-11-20T00:00:00Z","meter":"tokens","mode":"live","to":"2026-11-20T01:00:00Z","version":1}',
      '{"customer":"b\\n","from":"2026-11-20T00:00:00Z","groupBy":["region"],"groups":[["us","-2"]],"knownAt":"2026-11-20T00:00:00Z","meter":"tokens","mode":"live","to":"2026-11-20T01:00:00Z","version":1}',
    ];
    const text = `tallyhouse.seal/1\n${lines.join("\n")}\n`;
    expect(sealText([second, first])).toBe(text);
    expect(sealDigest([first, second])).toBe(createHash("sha256").update(text).digest("hex"));
  });

  it("changes with every quantity and with the cut", () => {
    const digests = [
      [first],
      [totals(DAY, [["eu", "1.50000001"]])],
      [totals(DAY + 900_000, [["eu", "1.5"]])],
      [first, second],
    ];
    expect(new Set(digests.map(sealDigest)).size).toBe(4);
  });
});

describe("late usage", () => {
  it("is what differs between two cuts, group by group", () => {
    const before = totals(DAY, [
      ["eu", "5"],
      ["gone", "2"],
      ["same", "1"],
    ]);
    const after = totals(DAY + 900_000, [
      ["eu", "3.5"],
      ["new", "4"],
      ["same", "1"],
    ]);
    expect(lateUsage(before, after)).toEqual([
      { group: ["eu"], before: quantity("5"), after: quantity("3.5"), difference: quantity("-1.5") },
      { group: ["gone"], before: quantity("2"), after: null, difference: quantity("-2") },
      { group: ["new"], before: null, after: quantity("4"), difference: quantity("4") },
    ]);
    expect(() => lateUsage(before, totals(DAY, [], "other"))).toThrow(/one question/);
  });
});
