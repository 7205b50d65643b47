import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type FolderStream, pinStream } from "./data-folder.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tallyhouse-folder-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const FIRST: FolderStream = {
  streamId: 1,
  predecessors: [],
  log: "embedded",
  analytics: "embedded",
  partitionCount: 16,
  bookingWindowSeconds: 900,
};
const before = { streamId: 1, partitionCount: 16, isLost: true };

test("a stream is held to the settings of its first start", () => {
  pinStream(folder, FIRST);
  pinStream(folder, FIRST);
  for (const changed of [{ log: "kafka usage.events.v1" }, { partitionCount: 32 }, { bookingWindowSeconds: 5 }])
    expect(() => pinStream(folder, { ...FIRST, ...changed })).toThrow("was begun with");
});

test("G2 the next stream names the folder's first one with its partitions, and then has settings of its own", () => {
  pinStream(folder, FIRST);
  const next: FolderStream = { ...FIRST, streamId: 2, log: "kafka usage.events.v2", partitionCount: 32 };
  for (const predecessors of [[], [{ ...before, partitionCount: 8 }], [{ ...before, streamId: 3 }]])
    expect(() => pinStream(folder, { ...next, predecessors })).toThrow("needs it in STREAM_PREDECESSORS");
  pinStream(folder, { ...next, predecessors: [before] });
  expect(() => pinStream(folder, { ...next, predecessors: [before], partitionCount: 16 })).toThrow("was begun with");
  // It was too early: the first stream has still to be closed.
  pinStream(folder, FIRST);
});
