/** A small log with every kind of record, and a crash at every port call of the process that folds it. */
import { Dice } from "@tallyhouse/testkit";
import { clockAfterTraffic, trafficLog } from "../traffic.ts";
import { config, STREAM } from "../scenario.ts";
import type { Death, DeathMoment } from "./port-calls.ts";
import { SimWorld } from "./world.ts";

const MOMENTS: readonly DeathMoment[] = ["before", "half", "after"];

/** What a run of the exhaustive part came to. */
export interface ExhaustiveSummary {
  readonly runs: number;
  /** Log records of all runs. */
  readonly records: number;
  /** How often a process died at each kind of call. */
  readonly hits: ReadonlyMap<string, number>;
}

/** Runs the small log with these deaths, each counted from the start of its process; the calls that were hit. */
async function survive(deaths: readonly Death[]): Promise<{ hits: string[]; records: number }> {
  const { DEDUPE_HORIZON_HOURS, MAX_AGE_HOURS, MAX_AHEAD_SECONDS } = config();
  const limits = {
    partitionCount: STREAM.partitionCount,
    bookingWindowSeconds: STREAM.bookingWindowSeconds,
    horizonSeconds: DEDUPE_HORIZON_HOURS * 3_600,
    maxAgeSeconds: MAX_AGE_HOURS * 3_600,
    maxAheadSeconds: MAX_AHEAD_SECONDS,
  };
  // Flushes of a few records: many places to die in a short log.
  const world = new SimWorld(new Dice(1), limits, { trace: () => {}, overrides: { FLUSH_BYTES_MAX: 6_000 } });
  const restoreTimers = world.time.install();
  try {
    world.time.advanceTo(clockAfterTraffic().now());
    const traffic = trafficLog();
    for (let partition = 0; partition < limits.partitionCount; partition += 1)
      for (const { receivedAt, key, value, headers } of traffic.entries(partition))
        world.log.append(receivedAt, { partition, key, value, headers });
    const hits: string[] = [];
    for (const death of deaths) hits.push(...(await dieOnce(world, death)));
    await world.settle();
    await world.landEverything();
    await world.settle();
    world.checks.atEnd();
    return { hits, records: world.log.recordCount };
  } finally {
    restoreTimers();
  }
}

/** One life up to its death; one that reaches the end of the log first dies of nothing. */
async function dieOnce(world: SimWorld, death: Death): Promise<string[]> {
  const owner = world.own();
  world.calls.arm(owner.name, death);
  while (!(await world.isStored())) {
    await world.advance(owner);
    const hit = world.calls.takeHit();
    if (hit === null) continue;
    await world.kill(owner);
    return [hit];
  }
  world.calls.disarm();
  await world.kill(owner);
  return [];
}

/** A death at every port call, at this moment of it. @throws {Violation} */
export async function dieEverywhere(moment: DeathMoment): Promise<ExhaustiveSummary> {
  const hits = new Map<string, number>();
  let runs = 0;
  let records = 0;
  for (let at = 1; ; at += 1) {
    const found = await survive([{ at, moment }]);
    const [hit] = found.hits;
    runs += 1;
    records += found.records;
    if (hit === undefined) return { runs, records, hits };
    hits.set(hit, (hits.get(hit) ?? 0) + 1);
  }
}

/**
 * Pairs: a second death at the calls of the process that recovers from the first. `from` and `step` share the first deaths between
 * workers; `stride` 1 is every pair, more leaves some out.
 * @throws {Violation}
 */
export async function dieTwice(input: { from: number; step: number; stride: number }): Promise<ExhaustiveSummary> {
  const hits = new Map<string, number>();
  let runs = 0;
  let records = 0;
  for (let first = input.from; ; first += input.step) {
    for (let second = 1 + (first % input.stride); ; second += input.stride) {
      // The moments of a pair rotate: every call meets each of them many times.
      const moments = [MOMENTS[first % 3] ?? "half", MOMENTS[(first + second) % 3] ?? "half"] as const;
      const found = await survive([
        { at: first, moment: moments[0] },
        { at: second, moment: moments[1] },
      ]);
      runs += 1;
      records += found.records;
      if (found.hits.length === 0) return { runs, records, hits };
      for (const hit of found.hits) hits.set(hit, (hits.get(hit) ?? 0) + 1);
      if (found.hits.length < 2) break;
    }
  }
}
