import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Migration, pendingMigrations, readMigrations } from "./migrations.ts";

const migration = (name: string, checksum = name): Migration => ({ name, checksum, script: "SELECT 1" });
const first = migration("0001-first.sql");
const second = migration("0002-second.sql");

describe("migrations", () => {
  test("come in the order of their names, other files are left alone, the checksum covers the bytes", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-migrations-"));
    await writeFile(join(folder, "0010-later.sql"), "SELECT 2");
    await writeFile(join(folder, "0002-earlier.sql"), "SELECT 1");
    await writeFile(join(folder, "README.md"), "not SQL");
    const read = await readMigrations(folder);
    expect(read.map(({ name, script }) => [name, script])).toEqual([
      ["0002-earlier.sql", "SELECT 1"],
      ["0010-later.sql", "SELECT 2"],
    ]);
    expect(read[0]?.checksum).toMatch(/^[0-9a-f]{64}$/);
    expect(read[0]?.checksum).not.toBe(read[1]?.checksum);
  });

  test("only what is not applied is pending", () => {
    expect(pendingMigrations([first, second], [])).toEqual([first, second]);
    expect(pendingMigrations([first, second], [first])).toEqual([second]);
    expect(pendingMigrations([first, second], [first, second])).toEqual([]);
  });

  test.each([
    { what: "changed", files: [migration(first.name, "other")], applied: [first], text: "changed after" },
    { what: "missing", files: [first], applied: [first, second], text: "not in this build" },
    { what: "out of order", files: [first, second], applied: [second], text: "sorts before" },
  ])("a file that is $what halts", ({ files, applied, text }) => {
    expect(() => pendingMigrations(files, applied)).toThrow(
      expect.objectContaining({
        code: "MIGRATION_MISMATCH",
        action: "halt",
        message: expect.stringContaining(text) as string,
      }),
    );
  });
});
