import { expect, it } from "vitest";
import { ConsumerWatchdog } from "./kafka-watchdog.ts";

const EVERY_MS = 1_000;

/** Checks every second up to and including `seconds`; returns the second and text of the first complaint. */
function run(seconds: number, each: (watchdog: ConsumerWatchdog, now: number) => void): [number, string] | null {
  const watchdog = new ConsumerWatchdog(0);
  for (let second = 1; second <= seconds; second += 1) {
    each(watchdog, second * EVERY_MS);
    const problem = watchdog.check(second * EVERY_MS, EVERY_MS);
    if (problem !== null) return [second, problem];
  }
  return null;
}

function alive(watchdog: ConsumerWatchdog, now: number): void {
  watchdog.noteFetch(now);
  watchdog.noteHeartbeat(now);
}

it("G9 is silent about a consumer that fetches and heartbeats", () => {
  expect(run(600, alive)).toBeNull();
});

it("G9 ends a consumer without a fetch for 60 s, and one without a heartbeat for two sessions", () => {
  expect(run(100, (watchdog, now) => watchdog.noteHeartbeat(now))).toEqual([61, expect.stringMatching(/no fetch/u)]);
  expect(run(100, (watchdog, now) => watchdog.noteFetch(now))).toEqual([21, expect.stringMatching(/no heartbeat/u)]);
});

it("G9 ends a consumer whose event loop stood still for more than 5 s", () => {
  const watchdog = new ConsumerWatchdog(0);
  alive(watchdog, 6_000);
  expect(watchdog.check(6_000, EVERY_MS)).toBeNull();
  expect(watchdog.check(12_001, EVERY_MS)).toMatch(/stood still for 5001 ms/u);
});

it("G9 names an open transaction when a partition stands with records behind it", () => {
  const stuck = (watchdog: ConsumerWatchdog, now: number): void => {
    alive(watchdog, now);
    watchdog.noteLags(now, [{ partition: 3, nextOffset: 7, endOffset: 9 }]);
  };
  expect(run(100, stuck)).toEqual([62, expect.stringMatching(/partition 3 .* offset 7 .* transaction may be open/u)]);
});

it("is silent about a lag that moves, ends, or waits for the subscriber", () => {
  const moving = (watchdog: ConsumerWatchdog, now: number): void => {
    alive(watchdog, now);
    const isStanding = (now / EVERY_MS) % 50 !== 0;
    watchdog.noteLags(now, isStanding ? [{ partition: 0, nextOffset: 7, endOffset: 9 }] : []);
  };
  expect(run(600, moving)).toBeNull();
});
