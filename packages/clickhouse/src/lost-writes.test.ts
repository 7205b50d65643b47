import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openClickHouse } from "./open.ts";

const FIXTURE = fileURLToPath(new URL("./lost-writes.fixture.ts", import.meta.url));
/** Blocks of 1,024 bytes, as bash counts: between one part (600 KB) and two. */
const FILE_BLOCKS_MAX = 900;

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-lost-writes-"));
});
afterEach(async () => rm(folder, { recursive: true, force: true }));

function runLimited(what: "insert" | "merge"): { lines: unknown[]; status: number | null; stderr: string } {
  const command = `ulimit -f ${FILE_BLOCKS_MAX}; exec "$0" "$@"`;
  const { stdout, stderr, status } = spawnSync("bash", ["-c", command, process.execPath, FIXTURE, folder, what], {
    encoding: "utf8",
  });
  const lines = stdout.trim().split("\n");
  return { lines: lines.map((line) => JSON.parse(line) as unknown), status, stderr };
}

/** After a start without the limit. */
async function storedRows(): Promise<unknown> {
  const opened = await openClickHouse({ path: folder });
  const rows = await opened.store.select(
    "SELECT toString(count()) AS n, toString(sum(length(text) > 0)) AS whole FROM t",
  );
  await opened.close();
  return rows;
}

test("G1 an insert whose bytes the system refused is not acknowledged, halts, and leaves the others whole", async () => {
  const { lines, status } = runLimited("insert");
  expect(lines).toEqual([{ acknowledged: 400 }, { acknowledged: 400 }, { code: "STORE_WRITES_LOST", action: "halt" }]);
  expect(status).toBe(3);
  expect(await storedRows()).toEqual([{ n: "800", whole: "800" }]);
});

test("G1 a merge whose bytes the system refused ends the process, and the next start has its rows", async () => {
  const { lines, status, stderr } = runLimited("merge");
  expect(lines).toEqual([{ acknowledged: 400 }, { acknowledged: 400 }, { merged: true }]);
  expect(status).toBe(1);
  expect(stderr).toContain("STORE_WRITES_LOST");
  expect(await storedRows()).toEqual([{ n: "800", whole: "800" }]);
});
