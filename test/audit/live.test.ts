/** Audits run in a loop while usage comes in, aggregators die in the middle of their inserts and zombies write beside their successors. */
import { type AnalyticsStore, TallyhouseError } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { activate, HANG_MS, METERS, nthEvent, openWorld, recordOf, runAggregator } from "./world.ts";

const LIVES = 4;
const EVENTS_PER_LIFE = 100;
const CHECKED_METERS = METERS.filter(({ meter }) => ["tokens", "users"].includes(meter));

/** A store whose process dies: from then on every second insert is done and not answered, every other one is lost. */
function mortal(store: AnalyticsStore): { store: AnalyticsStore; kill(): void } {
  let isDead = false;
  let turn = 0;
  const away = (): TallyhouseError =>
    new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message: "the process died" });
  return {
    kill() {
      isDead = true;
    },
    store: {
      ...store,
      async insert(input) {
        turn += 1;
        if (isDead && turn % 2 === 0) throw away();
        await store.insert(input);
        if (isDead) throw away();
      },
    },
  };
}

test("G3 nothing looks like a fault while writers write, die and come back", { timeout: 2 * HANG_MS }, async () => {
  const world = await openWorld({ bookingWindowSeconds: 1, isLive: true });
  const stop = new AbortController();
  const findings: unknown[] = [];
  let audits = 0;
  const auditing = (async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const { checks } = await world.audit();
      findings.push(...checks.flatMap(({ check, examples }) => examples.map((example) => ({ check, example }))));
      audits += 1;
    }
  })();
  try {
    world.append(Date.now(), CHECKED_METERS.flatMap(activate));
    for (let life = 0; life < LIVES; life += 1) {
      const process = mortal(world.analytics);
      const aggregator = runAggregator(world, process.store);
      const [before] = await world.analytics.select<{ rows: string }>(
        "SELECT toString(count()) AS rows FROM raw_events",
      );
      for (let n = 0; n < EVENTS_PER_LIFE; n += 1) {
        const at = Date.now();
        world.append(at, [recordOf(nthEvent(life * EVENTS_PER_LIFE + n, at - (n % 5) * 60_000))], aggregator.reader);
        // time passes here: booking windows of one second must end while audits look.
        await pause(5);
      }
      await until(
        async () => {
          const [now] = await world.analytics.select<{ rows: string }>(
            "SELECT toString(count()) AS rows FROM raw_events",
          );
          return Number(now?.rows) > Number(before?.rows);
        },
        { timeoutMs: HANG_MS, what: "this life stores something" },
      );
      process.kill();
      // Its stop is not waited for: what it still writes lands beside its successor's rows.
      aggregator.stop();
    }
    await world.fold();
    const atTheEnd = audits;
    await until(() => audits > atTheEnd + 1, { timeoutMs: HANG_MS, what: "an audit of everything" });
  } finally {
    stop.abort();
    await auditing;
    await world.close();
  }
  expect(findings).toEqual([]);
  expect(audits).toBeGreaterThan(2);
});
