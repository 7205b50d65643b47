import { describe, expect, it } from "vitest";
import { createBackoff } from "./backoff.ts";
import { createPacer } from "./pacer.ts";
import { manualClock } from "./test-support.ts";

describe("pacing", () => {
  it("never grants more than the rate plus one burst in any span", () => {
    const clock = manualClock();
    const pacer = createPacer({ ratePerSecond: 800, clock });
    let granted = 0;
    for (let elapsedMs = 0; elapsedMs < 10_000; elapsedMs += 7) {
      granted += pacer.take(1_000);
      clock.advance(7);
    }
    expect(granted).toBeLessThanOrEqual(8_080);
    expect(granted).toBeGreaterThan(7_900);
  });

  it("says how long to wait, also for rates below one burst", () => {
    const clock = manualClock();
    const pacer = createPacer({ ratePerSecond: 2, clock });
    expect(pacer.take(5)).toBe(1);
    expect(pacer.waitMs(3)).toBe(500);
    clock.advance(500);
    expect(pacer.waitMs(3)).toBe(0);
  });

  it("grants nothing while the limiter asked for rest, and nothing for a clock that steps back", () => {
    const clock = manualClock();
    const pacer = createPacer({ ratePerSecond: 100, clock });
    pacer.hold(250);
    expect(pacer.take(1)).toBe(0);
    expect(pacer.waitMs(1)).toBe(250);
    clock.advance(250);
    expect(pacer.take(20)).toBe(10);
    clock.advance(-60_000);
    expect(pacer.take(1)).toBe(0);
  });
});

describe("back-off", () => {
  it("doubles the ceiling up to a minute and forgets a row with a fate", () => {
    const clock = manualClock();
    const backoff = createBackoff({ clock, random: () => 0.999 });
    const waits = Array.from({ length: 9 }, () => {
      backoff.failed("1");
      return Math.ceil(((backoff.nextAt() ?? 0) - clock.now()) / 1_000);
    });
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
    expect(backoff.isWaiting("1")).toBe(true);
    backoff.forget("1");
    expect(backoff.isWaiting("1")).toBe(false);
    expect(backoff.nextAt()).toBeNull();
  });
});
