import { DAY_MS, partitionOfEvent } from "@tallyhouse/domain";
import { afterAll, beforeAll, expect, test } from "vitest";
import { controlOf, METERS, nthEvent, openWorld, PARTITIONS, recordOf, STARTED_AT, type World } from "./world.ts";

const MINUTE_MS = 60_000;
let world: World;

beforeAll(async () => {
  world = await openWorld();
  world.append(STARTED_AT, METERS.flatMap((meter) => controlOf({ kind: "meter.activate", ...meter })));
  for (let n = 0; n < 300; n += 1) {
    const at = STARTED_AT + n * 15_000;
    const event = nthEvent(n, at - (n % 11) * 7 * MINUTE_MS);
    world.append(at, [recordOf(event)]);
    if (n % 20 === 0) world.append(at, [recordOf(event)]);
    if (n % 25 === 0) world.append(at, [recordOf({ ...event, data: { inputTokens: 999 } })]);
    if (n % 30 === 0) world.append(at, [recordOf(nthEvent(1_000 + n, at - 40 * DAY_MS))]);
    if (n % 40 === 0) world.append(at, [recordOf(nthEvent(2_000 + n, at + DAY_MS))]);
    if (n % 50 === 0) world.append(at, [recordOf({ ...event, id: `bad-${n}`, data: { inputTokens: "x" } })]);
    const foreign = nthEvent(3_000 + n, at);
    if (n % 30 === 0) world.append(at, [recordOf(foreign, (partitionOfEvent(foreign, PARTITIONS) + 1) % PARTITIONS)]);
  }
  await world.fold();
});

afterAll(() => world.close());

test("clean", async () => {
  const report = await world.audit();
  for (const c of report.checks) console.log(c.check, c.rows, c.differences, c.seconds.toFixed(3), JSON.stringify(c.examples.slice(0,2)));
  expect(report.isClean).toBe(true);
});
