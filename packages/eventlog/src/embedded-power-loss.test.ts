import { setImmediate as nextTurn } from "node:timers/promises";
import type { LogEntry, OpenedEventLog } from "@tallyhouse/domain";
import { LogCollector, logRecord, numberedRecords, valuesOf } from "@tallyhouse/testkit";
import { describe, expect, it } from "vitest";
import { openEmbeddedLog } from "./embedded-log.ts";
import { PowerLoss, PowerLossFileSystem } from "./power-loss-file-system.ts";

const PARTITION_COUNT = 2;
const clock = { now: () => 1_700_000_000_000 };

/** A small generator with a printed seed, so that a failure can be repeated. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296;
  };
}

function open(fileSystem: PowerLossFileSystem, rest: { fsync?: "interval" } = {}): Promise<OpenedEventLog> {
  const options = { folder: "/data/log", name: "usage", partitionCount: PARTITION_COUNT, clock, fileSystem };
  return openEmbeddedLog({ ...options, segmentBytesMax: 400, ...rest });
}

async function readAll(opened: OpenedEventLog, partition: number, from = 0): Promise<LogEntry[]> {
  const { endOffset } = await opened.log.bounds(partition);
  const collector = new LogCollector();
  await collector.subscribeTo(opened);
  collector.seek(partition, from);
  if (endOffset > from) await collector.untilOffset(partition, endOffset);
  return collector.entriesOf(partition);
}

/** Appends to both partitions until done or cut off; what was acknowledged, and what a reader saw. */
async function scenario(fileSystem: PowerLossFileSystem): Promise<{ acknowledged: string[][]; seen: LogCollector }> {
  const acknowledged: string[][] = [[], []];
  const seen = new LogCollector();
  try {
    const opened = await open(fileSystem);
    await seen.subscribeTo(opened);
    for (const partition of [0, 1]) seen.seek(partition, 0);
    const append = async (partition: number, from: number, count: number): Promise<void> => {
      await opened.log.append(numberedRecords(partition, count, from));
      for (let i = from; i < from + count; i += 1) acknowledged[partition]?.push(String(i));
    };
    await append(0, 0, 3);
    await Promise.all([append(0, 3, 4), append(1, 0, 5)]);
    await append(1, 5, 1);
    await Promise.all([append(0, 7, 9), append(1, 6, 2)]);
    await opened.close();
  } catch (error) {
    if (!isPowerLoss(error)) throw error;
  }
  return { acknowledged, seen };
}

function isPowerLoss(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (cause instanceof PowerLoss) return true;
  return false;
}

function cutAt(fileSystem: PowerLossFileSystem, count: number): void {
  fileSystem.beforeCall = (fault) => {
    if (fault.count >= count) throw new PowerLoss(`at call ${count}`);
  };
}

it("G1 keeps everything acknowledged and everything read through a power loss at every file-system call", async () => {
  const whole = new PowerLossFileSystem();
  await scenario(whole);
  const callsMax = whole.callCount;
  expect(callsMax).toBeGreaterThan(40);
  for (let n = 1; n <= callsMax; n += 1) {
    for (let seed = 1; seed <= 8; seed += 1) {
      const context = `call ${n} of ${callsMax}, seed ${seed}`;
      const random = seeded(seed * 1_000 + n);
      const fileSystem = new PowerLossFileSystem();
      cutAt(fileSystem, n);
      const { acknowledged, seen } = await scenario(fileSystem);
      fileSystem.losePower(random);

      // The recovery is cut off too, somewhere or nowhere.
      cutAt(fileSystem, 1 + Math.floor(random() * 40));
      await open(fileSystem).then(
        (opened) => opened.close(),
        (error: unknown) => {
          if (!isPowerLoss(error)) throw new Error(context, { cause: error });
        },
      );
      fileSystem.losePower(random);
      fileSystem.beforeCall = () => undefined;

      for (const partition of [0, 1]) {
        const opened = await open(fileSystem);
        const entries = await readAll(opened, partition);
        const values = valuesOf(entries);
        const expected = values.map((_, i) => String(i));
        const acknowledgedHere = acknowledged[partition] ?? [];
        const seenHere = valuesOf(seen.entriesOf(partition));
        await opened.log.append([logRecord(partition, "after")]);
        const { endOffset } = await opened.log.bounds(partition);
        expect({
          context,
          values,
          offsets: entries.map((entry) => String(entry.offset)),
          acknowledged: values.slice(0, acknowledgedHere.length),
          seen: values.slice(0, seenHere.length),
          endOffset,
        }).toEqual({
          context,
          values: expected,
          offsets: expected,
          acknowledged: acknowledgedHere,
          seen: seenHere,
          endOffset: values.length + 1,
        });
        await opened.close();
      }
    }
  }
});

it("G1 makes durable what a killed process had only written, before anybody reads it", async () => {
  const fileSystem = new PowerLossFileSystem();
  const killed = await open(fileSystem);
  await killed.log.append(numberedRecords(0, 2));
  // The process dies between write and fsync; the kernel lives on and has the bytes.
  fileSystem.beforeCall = ({ call }) => {
    if (call === "datasync" || call === "truncate") throw new PowerLoss("killed");
  };
  await expect(killed.log.append(numberedRecords(0, 1, 2))).rejects.toThrow(/killed/u);
  fileSystem.beforeCall = () => undefined;
  const read = valuesOf(await readAll(await open(fileSystem), 0));
  expect(read).toEqual(["0", "1", "2"]);
  fileSystem.losePower(() => 0);
  expect(valuesOf(await readAll(await open(fileSystem), 0))).toEqual(read);
});

it("G1 shows readers and bounds nothing that an fsync has not confirmed", async () => {
  const fileSystem = new PowerLossFileSystem();
  const opened = await open(fileSystem);
  const collector = new LogCollector();
  await collector.subscribeTo(opened);
  collector.seek(0, 0);
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  fileSystem.beforeCall = ({ call }) => {
    if (call !== "datasync") return undefined;
    reached.resolve();
    return gate.promise;
  };
  let isAcknowledged = false;
  const append = opened.log.append(numberedRecords(0, 2)).then(() => {
    isAcknowledged = true;
    return null;
  });
  await reached.promise;
  expect(await opened.log.bounds(0)).toEqual({ earliestOffset: 0, endOffset: 0 });
  collector.seek(0, 0);
  // A turn of the event loop: a delivery that were wrongly possible would have begun.
  await nextTurn();
  expect([collector.entriesOf(0), isAcknowledged]).toEqual([[], false]);
  gate.resolve();
  await append;
  expect(valuesOf(await collector.untilOffset(0, 2))).toEqual(["0", "1"]);
  await opened.close();
});

it("keeps a readable prefix of what fsync interval acknowledged, over segment ends too", async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const fileSystem = new PowerLossFileSystem();
    const opened = await open(fileSystem, { fsync: "interval" });
    for (let i = 0; i < 25; i += 1) await opened.log.append(numberedRecords(0, 1, i));
    fileSystem.losePower(seeded(seed));
    const values = valuesOf(await readAll(await open(fileSystem), 0));
    expect({ seed, values }).toEqual({ seed, values: values.map((_, i) => String(i)) });
  }
});

describe("a failing disk", () => {
  it("G1 ends for good at a failed fsync: the append rejects, later ones too, nothing unsynced is ever read", async () => {
    const fileSystem = new PowerLossFileSystem();
    const opened = await open(fileSystem);
    await opened.log.append(numberedRecords(0, 2));
    let failures = 1;
    fileSystem.beforeCall = ({ call }) => {
      if (call === "datasync" && failures > 0) {
        failures -= 1;
        throw Object.assign(new Error("EIO: the disk lost it"), { code: "EIO" });
      }
    };
    const collector = new LogCollector();
    await collector.subscribeTo(opened);
    collector.seek(0, 0);
    await expect(opened.log.append(numberedRecords(0, 1, 2))).rejects.toMatchObject({ code: "LOG_UNAVAILABLE" });
    await expect(opened.failed).rejects.toMatchObject({ code: "LOG_UNAVAILABLE", action: "halt" });
    await expect(opened.log.append(numberedRecords(0, 1, 3))).rejects.toMatchObject({ code: "LOG_UNAVAILABLE" });
    expect(valuesOf(collector.entriesOf(0)).every((value) => Number(value) < 2)).toBe(true);
    await opened.close();
    expect(valuesOf(await readAll(await open(fileSystem), 0))).toEqual(["0", "1"]);
  });

  it("answers LOG_FULL when the disk is full, cuts the partial frame, and goes on when there is room", async () => {
    const fileSystem = new PowerLossFileSystem();
    const opened = await open(fileSystem);
    await opened.log.append(numberedRecords(0, 2));
    for (const count of [1, 3, 30]) {
      // Less than one frame, and a frame and a half: what was written of the rest must not come back.
      fileSystem.freeBytes = count === 1 ? 10 : 100;
      await expect(opened.log.append(numberedRecords(0, count, 90))).rejects.toMatchObject({
        code: "LOG_FULL",
        action: "retry",
      });
    }
    fileSystem.beforeCall = ({ call }) => {
      if (call === "create") throw Object.assign(new Error("ENOSPC: no inode left"), { code: "ENOSPC" });
    };
    await expect(opened.log.append(numberedRecords(0, 30, 90))).rejects.toMatchObject({ code: "LOG_FULL" });
    expect(await opened.log.bounds(0)).toEqual({ earliestOffset: 0, endOffset: 2 });
    fileSystem.beforeCall = () => undefined;
    fileSystem.freeBytes = Infinity;
    await opened.log.append(numberedRecords(0, 3, 2));
    await opened.close();
    expect(valuesOf(await readAll(await open(fileSystem), 0))).toEqual(["0", "1", "2", "3", "4"]);
  });

  it("ends at any other failed write", async () => {
    const fileSystem = new PowerLossFileSystem();
    const opened = await open(fileSystem);
    fileSystem.beforeCall = ({ call }) => {
      if (call === "write") throw Object.assign(new Error("EIO"), { code: "EIO" });
    };
    await expect(opened.log.append(numberedRecords(0, 1))).rejects.toMatchObject({ code: "LOG_UNAVAILABLE" });
    await expect(opened.failed).rejects.toMatchObject({ action: "halt" });
    await opened.close();
  });
});

describe("retention", () => {
  const WEEK_MS = 168 * 3_600_000;

  it("removes whole segments that are old and below progress, oldest first, and nothing else", async () => {
    const fileSystem = new PowerLossFileSystem();
    let nowMs = 1_700_000_000_000;
    let progress = 0;
    const options = { folder: "/data/log", name: "usage", partitionCount: 1, fileSystem, segmentBytesMax: 400 };
    const opened = await openEmbeddedLog({ ...options, clock: { now: () => nowMs }, progressOf: () => progress });
    const earliest = async (): Promise<number> => {
      // Retention follows an append.
      await opened.log.append(numberedRecords(0, 1, 0));
      await opened.log.append(numberedRecords(0, 1, 0));
      return (await opened.log.bounds(0)).earliestOffset;
    };
    for (let i = 0; i < 40; i += 1) await opened.log.append(numberedRecords(0, 1, i));
    nowMs += WEEK_MS + 60_001;
    expect(await earliest()).toBe(0);
    progress = 15;
    nowMs += 60_001;
    const kept = await earliest();
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThanOrEqual(15);
    progress = 1_000;
    nowMs += 60_001;
    const keptLater = await earliest();
    expect(keptLater).toBeGreaterThan(15);
    // The segment that is written to stays, and what was appended a minute ago with it.
    expect(keptLater).toBeLessThanOrEqual(40);
    const entries = await readAll(opened, 0, keptLater);
    expect(entries[0]?.offset).toBe(keptLater);
    await opened.close();
  });
});
