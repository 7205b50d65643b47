import { copyFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OpenedEventLog, TallyhouseError } from "@tallyhouse/domain";
import { LogCollector, numberedRecords, valuesOf } from "@tallyhouse/testkit";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openEmbeddedLog } from "./embedded-log.ts";
import { statedFrameBytes } from "./frame.ts";

const clock = { now: () => 1_700_000_000_000 };
const RECORD_COUNT = 6;

let folder = "";
const opened: OpenedEventLog[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-log-"));
});

afterEach(async () => {
  for (const log of opened.splice(0)) await log.close();
  await rm(folder, { recursive: true });
});

async function open(
  rest: { segmentBytesMax?: number; partitionCount?: number; name?: string } = {},
): Promise<OpenedEventLog> {
  const log = await openEmbeddedLog({ folder, name: "usage", partitionCount: 1, clock, ...rest });
  opened.push(log);
  return log;
}

/** Writes the records one by one, closes, and returns the segment files, oldest first. */
async function written(segmentBytesMax?: number): Promise<string[]> {
  const log = await open(segmentBytesMax === undefined ? {} : { segmentBytesMax });
  for (let i = 0; i < RECORD_COUNT; i += 1) await log.log.append(numberedRecords(0, 1, i));
  await log.close();
  const partition = join(folder, "partition-0000");
  return (await readdir(partition)).sort().map((name) => join(partition, name));
}

async function onlySegment(): Promise<string> {
  const [path] = await written();
  if (path === undefined) throw new Error("no segment");
  return path;
}

/** Where each frame starts, and the end. */
function frameStarts(bytes: Buffer): number[] {
  const starts = [0];
  for (let at = 0; at < bytes.length;) {
    at += statedFrameBytes(bytes, at);
    starts.push(at);
  }
  return starts;
}

async function readAll(log: OpenedEventLog): Promise<string[]> {
  const { endOffset } = await log.log.bounds(0);
  const collector = new LogCollector();
  await collector.subscribeTo(log);
  collector.seek(0, 0);
  return endOffset === 0 ? [] : valuesOf(await collector.untilOffset(0, endOffset));
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, i) => String(i));

describe("a torn tail", () => {
  it("G1 loses only the last frame when the file ends at any byte of it, and goes on", async () => {
    const path = await onlySegment();
    await copyFile(path, `${path}.copy`);
    const starts = frameStarts(await readFile(path));
    const [last = 0, end = 0] = starts.slice(-2);
    for (let length = last; length < end; length += 1) {
      await copyFile(`${path}.copy`, path);
      await truncate(path, length);
      const log = await open();
      expect(await readAll(log)).toEqual(numbers(RECORD_COUNT - 1));
      await log.log.append(numberedRecords(0, 1, RECORD_COUNT - 1));
      await log.close();
      expect(await readAll(await open())).toEqual(numbers(RECORD_COUNT));
    }
  });

  it("G1 loses only the last frame when any byte of it was damaged, or the rest of it became zeros", async () => {
    const path = await onlySegment();
    const whole = await readFile(path);
    const [last = 0, end = 0] = frameStarts(whole).slice(-2);
    for (let at = last; at < end; at += 1) {
      const flipped = Buffer.from(whole);
      flipped[at] = (flipped[at] ?? 0) ^ 0x10;
      const zeroed = Buffer.from(whole).fill(0, at);
      for (const bytes of [flipped, zeroed]) {
        await writeFile(path, bytes);
        const log = await open();
        expect((await log.log.bounds(0)).endOffset).toBe(RECORD_COUNT - 1);
        await log.close();
      }
    }
  });

  it("cuts a tail of zeros, as a file system leaves it behind a power loss", async () => {
    const path = await onlySegment();
    const whole = await readFile(path);
    for (const zeros of [1, 7, 8, 100, 4_096, 5_000_000]) {
      await writeFile(path, Buffer.concat([whole, Buffer.alloc(zeros)]));
      const log = await open();
      expect(await readAll(log)).toEqual(numbers(RECORD_COUNT));
      await log.close();
      expect((await readFile(path)).equals(whole)).toBe(true);
    }
  });
});

describe("damage that no crash leaves", () => {
  it("refuses to open when a frame is damaged before valid ones, at any byte, and changes nothing", async () => {
    const path = await onlySegment();
    const whole = await readFile(path);
    const [lastStart = 0] = frameStarts(whole).slice(-2);
    for (let at = 0; at < lastStart; at += 1) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 0x01;
      await writeFile(path, bytes);
      await expect(open()).rejects.toMatchObject({ code: "LOG_CORRUPT", action: "halt" });
      expect((await readFile(path)).equals(bytes)).toBe(true);
    }
  });

  it("refuses a frame that is missing from the middle", async () => {
    const path = await onlySegment();
    const whole = await readFile(path);
    const [, second = 0, third = 0] = frameStarts(whole);
    await writeFile(path, Buffer.concat([whole.subarray(0, second), whole.subarray(third)]));
    await expect(open()).rejects.toMatchObject({ code: "LOG_CORRUPT" });
  });

  it("finds the valid frame behind damage that is larger than a search window", async () => {
    const log = await open({ segmentBytesMax: 100_000_000 });
    const value = Buffer.alloc(900_000, 5);
    for (let i = 0; i < 8; i += 1) await log.log.append([{ partition: 0, key: null, value, headers: {} }]);
    await log.close();
    const path = join(folder, "partition-0000", (await readdir(join(folder, "partition-0000")))[0] ?? "");
    const bytes = await readFile(path);
    const starts = frameStarts(bytes);
    await writeFile(path, bytes.fill(0, starts[0], starts[7]));
    await expect(open()).rejects.toMatchObject({ code: "LOG_CORRUPT" });
  });

  it("ends when a sealed segment turns out damaged, short or missing while it is read", async () => {
    const [first = "", second = ""] = await written(120);
    const whole = await readFile(first);
    const faults = [
      () => writeFile(first, Buffer.from(whole).fill(0, 20, 24)),
      () => truncate(first, frameStarts(whole).at(-2)),
      () => rm(second),
    ];
    for (const fault of faults) {
      await writeFile(first, whole);
      await fault();
      const log = await open();
      const collector = new LogCollector();
      await collector.subscribeTo(log);
      collector.seek(0, 0);
      await expect(log.failed).rejects.toMatchObject({ code: "LOG_CORRUPT", action: "halt" });
      await log.close();
    }
  });
});

describe("opening", () => {
  it("refuses another partition count or name, saying which is right", async () => {
    await (await open()).close();
    for (const other of [{ partitionCount: 2 }, { name: "other" }]) {
      const error: unknown = await open(other).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(TallyhouseError);
      expect(error).toMatchObject({
        code: "LOG_MISCONFIGURED",
        action: "halt",
        message: expect.stringMatching(/1 partitions/u),
      });
    }
    await (await open()).close();
  });

  it("opens a folder whose description was being written when the process died", async () => {
    await writeFile(join(folder, "log.json.tmp"), "{");
    const log = await open();
    await log.log.append(numberedRecords(0, 1));
    await log.close();
    expect(await readAll(await open())).toEqual(["0"]);
  });

  it("keeps receivedAt from stepping back when the clock does, over a restart and an empty last segment too", async () => {
    await written(120);
    const early = await openEmbeddedLog({
      folder,
      name: "usage",
      partitionCount: 1,
      clock: { now: () => 5 },
      segmentBytesMax: 1,
    });
    opened.push(early);
    await early.log.append(numberedRecords(0, 1));
    const collector = new LogCollector();
    await collector.subscribeTo(early);
    collector.seek(0, RECORD_COUNT);
    expect((await collector.untilOffset(0, RECORD_COUNT + 1))[0]?.receivedAt).toBe(clock.now());
  });
});

it("serves a slow reader from the files, while appends go on into new segments", async () => {
  const log = await open({ segmentBytesMax: 2_000 });
  const collector = new LogCollector();
  await collector.subscribeTo(log);
  collector.seek(0, 0);
  collector.hold(0);
  await log.log.append(numberedRecords(0, 1));
  await collector.until(() => collector.batchCountOf(0) === 1);
  for (let i = 1; i < 500; i += 1) await log.log.append(numberedRecords(0, 1, i));
  collector.release(0);
  expect(valuesOf(await collector.untilOffset(0, 500))).toEqual(numbers(500));
});
