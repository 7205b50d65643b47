import {
  appendFileSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BATCH_BYTES_MAX, openFileJournal } from "./journal.ts";
import { encodeRecord } from "./record-file.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "emulator-journal-"));
  path = join(folder, "journal.ndjson");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function open(compact: (bytes: number) => boolean = () => false) {
  const records: unknown[] = [];
  const journal = await openFileJournal({ folder, onRecord: (record) => records.push(record), compact });
  return { journal, records };
}

async function read(): Promise<unknown[]> {
  const { journal, records } = await open();
  await journal.close();
  return records;
}

describe("the journal", () => {
  it("gives back what was appended, in order, across restarts", async () => {
    const { journal } = await open();
    for (let at = 0; at < 100; at += 1) journal.append({ at, text: "ü\n\u2028" });
    await journal.durable();
    await journal.close();
    const next = await open();
    expect(next.records).toEqual(Array.from({ length: 100 }, (_, at) => ({ at, text: "ü\n\u2028" })));
    next.journal.append({ at: 100 });
    await next.journal.durable();
    await next.journal.close();
    expect(await read()).toHaveLength(101);
  });

  it("has on disk whatever durable() resolved for, without a close", async () => {
    const { journal } = await open();
    for (let round = 1; round <= 20; round += 1) {
      journal.append({ round });
      await journal.durable();
      const lines = readFileSync(path, "utf8").trimEnd().split("\n");
      expect(lines).toHaveLength(round);
    }
    await journal.close();
  });

  it("writes more than one batch without losing or repeating a record", async () => {
    const { journal } = await open();
    const text = "x".repeat(100_000);
    for (let at = 0; at < 50; at += 1) journal.append({ at, text });
    await Promise.all([journal.durable(), journal.durable()]);
    expect(statSync(path).size).toBeGreaterThan(4 * BATCH_BYTES_MAX);
    await journal.close();
    expect((await read()).map((record) => (record as { at: number }).at)).toEqual(
      Array.from({ length: 50 }, (_, at) => at),
    );
  });

  it("cuts a tail torn at any byte and goes on from there", async () => {
    const { journal } = await open();
    for (let at = 0; at < 3; at += 1) journal.append({ at });
    await journal.durable();
    await journal.close();
    const whole = join(folder, "whole");
    copyFileSync(path, whole);
    const size = statSync(path).size;
    const lineBytes = size / 3;
    for (let length = 0; length <= size; length += 1) {
      copyFileSync(whole, path);
      truncateSync(path, length);
      const { journal: torn, records } = await open();
      expect(records).toHaveLength(Math.floor(length / lineBytes));
      torn.append({ at: "after" });
      await torn.durable();
      await torn.close();
      expect(await read()).toEqual([...records, { at: "after" }]);
    }
  });

  it("does not believe a record with a wrong checksum", async () => {
    writeFileSync(
      path,
      encodeRecord({ at: 0 }) + encodeRecord({ at: 1 }).replace("1}", "2}") + encodeRecord({ at: 2 }),
    );
    expect(await read()).toEqual([{ at: 0 }]);
    expect(statSync(path).size).toBe(encodeRecord({ at: 0 }).length);
  });

  it("refuses damage that no crash explains, and cuts nothing", async () => {
    writeFileSync(path, `${encodeRecord({ at: 0 })}damage\n`);
    const line = encodeRecord({ text: "x".repeat(1_000) });
    appendFileSync(path, line.repeat(Math.ceil(BATCH_BYTES_MAX / line.length)));
    const { size } = statSync(path);
    await expect(open()).rejects.toThrow("which no crash explains");
    expect(statSync(path).size).toBe(size);
  });

  it("is emptied when its content is stored elsewhere, and keeps what comes after", async () => {
    let compacted = 0;
    const { journal } = await open((bytes) => {
      if (bytes < 1_000) return false;
      compacted += 1;
      return true;
    });
    for (let at = 0; at < 200; at += 1) {
      journal.append({ at });
      await journal.durable();
    }
    await journal.close();
    expect(compacted).toBeGreaterThan(1);
    expect(statSync(path).size).toBeLessThan(1_000);
    expect((await read()).at(-1)).toEqual({ at: 199 });
  });

  it("answers nothing any more once a write failed", async () => {
    const { journal } = await open(() => {
      throw new Error("no space left");
    });
    journal.append({ at: 0 });
    await journal.durable(); // durable before the snapshot was tried
    await expect
      .poll(() =>
        journal.durable().then(
          () => "durable",
          () => "failed",
        ),
      )
      .toBe("failed");
    expect(() => journal.append({ at: 1 })).toThrow("the journal cannot be written");
    await journal.close();
  });
});
