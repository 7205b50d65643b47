/**
 * Two aggregators of one AGGREGATOR_INSTANCE, by mistake: each dismisses the other from the group when it starts. One is stopped
 * with folded usage in it, dismissed meanwhile, and let go on while its partitions are another's. Nothing is lost or counted twice.
 */
import { readFileSync } from "node:fs";
import { DAY_MS, floorTo, formatInstant, HOUR_MS } from "@tallyhouse/domain";
import type { DemoEvent } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { createLoadClient } from "../support/load-client.ts";
import { untilFolded } from "../support/pipeline-status.ts";
import { countedIds, recount, storedTotals } from "../support/recount.ts";
import { serversOfEnvironment, startWorld, type World } from "./world.ts";

/** More than the load sends. */
const EVENTS = 120_000;
const FLOWING_EVENTS = 500;
const RECOVERY_MAX_MS = 90_000;
const METERS_FILE = new URL("../../examples/meters.yaml", import.meta.url);

test("G2 G9 an aggregator that another of its name dismisses while it stands still counts nothing twice", async () => {
  const world = await startWorld({
    name: "shared-instance",
    servers: serversOfEnvironment(),
    metersFile: readFileSync(METERS_FILE, "utf8"),
    settings: { AGGREGATOR_INSTANCE: "same", REPORT_INTERVAL_MS: "3000" },
  });
  try {
    const events = loadEvents(Date.now());
    const client = createLoadClient({ urls: world.gatewayUrls, token: world.token, events, lanes: 4, restMs: 100 });
    const over = new AbortController();
    const load = client.run(over.signal);
    const isFlowing = async (): Promise<void> => {
      const before = client.acknowledged.size;
      await until(() => client.acknowledged.size >= before + FLOWING_EVENTS, { timeoutMs: RECOVERY_MAX_MS });
    };
    const { aggregator1, aggregator2 } = world.processes;
    await isFlowing();
    aggregator1.suspend();
    await aggregator2.kill();
    await untilEveryPartitionMoves(world);
    aggregator1.resume();
    await isFlowing();
    await world.untilReady();
    await untilEveryPartitionMoves(world);
    over.abort();
    await load;

    await client.resendUnanswered();
    await untilFolded({ url: world.gatewayUrls[0], token: world.token });
    const { ids, repeated } = await countedIds(world.ports.analytics);
    const lost = [...client.acknowledged].filter((id) => !ids.has(id));
    expect({ lost, repeated }).toEqual({ lost: [], repeated: [] });
    const oracle = recount(events.filter((event) => client.sent.has(event.id)));
    expect(await storedTotals(world.ports.analytics)).toEqual(oracle);
  } finally {
    await world.end();
  }
}, 300_000);

/** Whoever owns them now: every partition stores more. */
async function untilEveryPartitionMoves({ ports: { analytics, log } }: World): Promise<void> {
  const stored = async (): Promise<Map<number, number>> => {
    const rows = await analytics.select<{ partition: number; next: string }>(
      "SELECT logPartition AS partition, toString(max(nextOffset)) AS next FROM progress GROUP BY logPartition",
    );
    return new Map(rows.map(({ partition, next }) => [partition, Number(next)]));
  };
  const before = await stored();
  const partitions = Array.from({ length: log.partitionCount }, (_, partition) => partition);
  const hasMoved = async (): Promise<boolean> => {
    const now = await stored();
    return partitions.every((partition) => (now.get(partition) ?? 0) > (before.get(partition) ?? 0));
  };
  await until(hasMoved, { timeoutMs: RECOVERY_MAX_MS, what: "every partition stores more" });
}

function loadEvents(nowAt: number): DemoEvent[] {
  const noonAt = floorTo(nowAt, DAY_MS) - DAY_MS / 2;
  return Array.from({ length: EVENTS }, (_, n) => ({
    id: `load-${n}`,
    source: "load",
    customer: `cust-${n % 6}`,
    type: "llm.request",
    time: formatInstant(noonAt + ((n * 7_919) % (4 * HOUR_MS))),
    data: { inputTokens: n % 4_000, outputTokens: n % 500, model: "small" },
  }));
}
