/** The auditor on the real engine finds nothing in what the aggregator wrote: every fate, aggregation and kind of value. */
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  activate,
  controlOf,
  correct,
  dimensions,
  METERS,
  nthEvent,
  openWorld,
  recordOf,
  replacementOf,
  sendTraffic,
  STARTED_AT,
  type World,
} from "./world.ts";

const MINUTE_MS = 60_000;

describe("what the aggregator wrote", () => {
  let world: World;
  beforeAll(async () => {
    world = await openWorld();
  });
  afterAll(() => world.close());

  test("an empty deployment is clean", async () => {
    expect(await world.audit()).toMatchObject({ isClean: true, cut: {} });
  });

  test("G3 every fate, aggregation, condition, pointer and kind of value is clean", { timeout: 240_000 }, async () => {
    world.append(STARTED_AT, METERS.flatMap(activate));
    sendTraffic(world, 240);
    await world.fold();
    const { checks, ...report } = await world.audit();
    expect(checks.flatMap(({ examples }) => examples)).toEqual([]);
    expect(report.isClean).toBe(true);
    const statuses = await world.analytics.select<{ status: string }>(
      "SELECT DISTINCT toString(status) AS status FROM raw_events ORDER BY status",
    );
    // Every fate is there, so that none is clean by absence.
    expect(statuses.map(({ status }) => status)).toEqual(
      ["control", "conflict", "counted", "duplicate", "invalid", "redirected", "too_early", "too_late"].sort(),
    );
    const meters = await world.analytics.select<{ meter: string }>("SELECT DISTINCT meter FROM rollup ORDER BY meter");
    expect(meters.map(({ meter }) => meter)).toEqual(METERS.map(({ meter }) => meter).sort());
  });

  test("G3 so are voids, replacements, ends and a meter that joins late", { timeout: 240_000 }, async () => {
    const late = meterVersion({ meter: "late_tokens", rule: { dimensions } });
    world.append(STARTED_AT + 2 * 60 * MINUTE_MS, activate(late));
    for (const n of [3, 8, 12, 17]) await correct(world, n, null);
    await correct(world, 3, null);
    for (const n of [5, 6, 21]) await correct(world, n, replacementOf(n));
    await correct(world, 6, replacementOf(7));
    const until = new Date(STARTED_AT + 5 * 60 * MINUTE_MS).toISOString();
    world.append(
      STARTED_AT + 4 * 60 * MINUTE_MS,
      controlOf({ kind: "meter.end", mode: "live", meter: "calls", version: 1, until }),
    );
    for (let n = 500; n < 560; n += 1) {
      const at = STARTED_AT + 4.9 * 60 * MINUTE_MS + (n - 500) * MINUTE_MS;
      world.append(at, [recordOf(nthEvent(n, at))]);
    }
    await world.fold();
    const { checks } = await world.audit();
    expect(checks.flatMap(({ examples }) => examples)).toEqual([]);
    const [voided] = await world.analytics.select<{ rows: string }>(
      "SELECT toString(sum(voided)) AS rows FROM rollup FINAL WHERE meter = 'calls'",
    );
    expect(Number(voided?.rows)).toBe(7);
  });
});
