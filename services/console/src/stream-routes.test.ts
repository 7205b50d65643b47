import { decodeControl } from "@tallyhouse/domain";
import { afterAll, beforeAll, expect, test } from "vitest";
import { drainOutbox } from "./outbox.ts";
import { CONTROL_KEY, openTestConsole, STREAM, type TestConsole } from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const CLOSE = "/admin/v1/stream/close";
let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
});
afterAll(() => world.close());

/** What the aggregator stores of closes: rows, and progress to this offset. */
async function fold(partition: number, nextOffset: number): Promise<void> {
  await world.analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: [[STREAM.streamId, partition, 7, NOON, "stream.close", "", "{}"]],
  });
  await world.analytics.insert({
    table: "progress",
    columns: ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"],
    rows: [[STREAM.streamId, partition, nextOffset, NOON, 1, 0, "test", NOON]],
  });
}

test("a close that names another stream, nothing, or comes with a test token is refused", async () => {
  for (const body of [{}, { stream: 2 }, { stream: "1" }, { stream: 1, force: true }]) {
    const refused = await world.post(CLOSE, body);
    expect([refused.status, refused.body["code"]]).toEqual([400, "BODY_INVALID"]);
  }
  expect((await world.post(CLOSE, { stream: 1 }, "test")).status).toBe(401);
  expect(await world.control.query("SELECT id FROM control_outbox")).toEqual([]);
});

test("one close per partition of this stream goes into the log, however often it is asked for; then it tells how far it is", async () => {
  for (let n = 0; n < 2; n += 1) {
    const closing = await world.post(CLOSE, { stream: STREAM.streamId });
    expect([closing.status, closing.body]).toEqual([
      202,
      { stream: 1, state: "closing", partitions: STREAM.partitionCount, closedPartitions: 0 },
    ]);
    await drainOutbox(world, { streamId: STREAM.streamId, key: CONTROL_KEY });
  }
  const facts = world.log.records.map((entry) =>
    decodeControl({ entry, partition: entry.partition, keys: [CONTROL_KEY] }),
  );
  expect(facts).toEqual(
    Array.from({ length: STREAM.partitionCount }, () => ({
      kind: "control",
      fact: { kind: "stream.close", stream: STREAM.streamId },
    })),
  );
  // Stored, and not yet below progress: rows of the same flush may still be missing.
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) await fold(partition, 7);
  expect((await world.post(CLOSE, { stream: STREAM.streamId })).body["closedPartitions"]).toBe(0);
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) await fold(partition, 8);
  const closed = await world.post(CLOSE, { stream: STREAM.streamId });
  expect([closed.status, closed.body["state"]]).toEqual([200, "closed"]);
});
