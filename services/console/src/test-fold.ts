/** Does with corrections in the log what the aggregator's fold does with them: used by tests alone. */
import { decodeControl, type LogEntry, readCorrectedEvent, type UsageEvent } from "@tallyhouse/domain";
import { drainOutbox } from "./outbox.ts";
import { CONTROL_KEY, rawRow, rawRowOf, STREAM, type TestConsole } from "./test-support.ts";

/** Corrections stand behind every usage event of a test. */
const FIRST_CONTROL_OFFSET = 1_000_000;

/** Moves what waits into the log. */
export function drain(world: TestConsole): Promise<number> {
  return drainOutbox({ control: world.control, log: world.log }, { streamId: STREAM.streamId, key: CONTROL_KEY });
}

/**
 * Folds the corrections that are in the log and not folded: raw row and control record of each. `refuse` makes the record invalid.
 * @returns the offsets of the records, in the order of the log.
 */
export async function fold(world: TestConsole, options: { readonly refuse?: boolean } = {}): Promise<number[]> {
  const records = world.log.records.splice(0);
  const bookedAt = world.clock.now();
  const offsets: number[] = [];
  for (const record of records) {
    const offset = await nextOffset(world);
    offsets.push(offset);
    const entry: LogEntry = { ...record, offset, receivedAt: bookedAt, marker: false };
    const reading = decodeControl({ entry, partition: record.partition, keys: [CONTROL_KEY] });
    if (reading.kind !== "control" || (reading.fact.kind !== "void" && reading.fact.kind !== "replace"))
      throw new Error("no correction");
    const { fact } = reading;
    const place = { partition: record.partition, offset };
    const body = record.value?.toString("utf8") ?? "";
    const [known] = await world.analytics.select(
      `SELECT 1 FROM control_records WHERE kind IN ('void', 'replace') AND logPartition = {partition:UInt16}
         AND target = {target:String}`,
      { partition: record.partition, target: String(fact.offset) },
    );
    if (options.refuse === true) {
      const payload = Buffer.from(body).toString("base64");
      await rawRow(world.analytics, {
        ...place,
        bookedAt,
        status: "invalid",
        reason: "CONTROL_RECORD_INVALID",
        payload,
      });
      continue;
    }
    const after = fact.kind === "replace" && known === undefined ? readCorrectedEvent(fact.replacement) : null;
    if (after === null)
      await rawRow(world.analytics, { ...place, bookedAt, status: "control", reason: fact.kind, payload: body });
    else await replaced(world, { ...place, event: after }, bookedAt);
    if (known !== undefined) continue;
    await world.analytics.insert({
      table: "control_records",
      columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
      rows: [[STREAM.streamId, record.partition, offset, bookedAt, fact.kind, String(fact.offset), body]],
    });
  }
  return offsets;
}

async function replaced(
  world: TestConsole,
  entry: { partition: number; offset: number; event: UsageEvent & { readonly occurredAt: number } },
  bookedAt: number,
): Promise<void> {
  const row = { ...rawRowOf(entry), bookedAt, receivedAt: bookedAt, reason: "replace" };
  await world.analytics.insert({ table: "raw_events", columns: Object.keys(row), rows: [Object.values(row)] });
}

async function nextOffset(world: TestConsole): Promise<number> {
  const [row] = await world.analytics.select<{ last: string }>(
    "SELECT toString(max(logOffset)) AS last FROM raw_events",
  );
  return Math.max(FIRST_CONTROL_OFFSET, Number(row?.last ?? 0) + 1);
}
