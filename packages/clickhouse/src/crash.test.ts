import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { openClickHouse } from "./open.ts";

const FIXTURE = fileURLToPath(new URL("./crash.fixture.ts", import.meta.url));
/** Acknowledged inserts to wait for before each kill: another number each time, so that the kill meets other moments. */
const KILLS_AFTER = [1, 7, 20];

/** Starts the inserting process; `acknowledged` holds the last number it said. */
function startInserting(
  folder: string,
  run: number,
): { child: ChildProcessByStdio<null, Readable, null>; acknowledged: () => number } {
  const child = spawn(process.execPath, [FIXTURE, folder, String(run)], { stdio: ["ignore", "pipe", "ignore"] });
  let last = -1;
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    last = Number(lines.at(-1) ?? last);
  });
  return { child, acknowledged: () => last };
}

test("G1 every acknowledged insert is there after SIGKILL, whole, and the folder opens again", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-crash-"));
  const acknowledged: number[] = [];
  for (const [run, kills] of KILLS_AFTER.entries()) {
    const writer = startInserting(folder, run);
    await until(() => writer.acknowledged() >= kills, { timeoutMs: 30_000, what: `${kills} acknowledged inserts` });
    writer.child.kill("SIGKILL");
    // `close`, not `exit`: what it said before it died is read to the end.
    await once(writer.child, "close");
    acknowledged.push(writer.acknowledged());
  }
  const opened = await openClickHouse({ path: folder });
  for (const [run, last] of acknowledged.entries()) {
    const [stored] = await opened.store.select<{ inserts: string; rows: string }>(
      "SELECT uniqExact(n) AS inserts, count() AS rows FROM crash WHERE run = {run:UInt16} AND n <= {last:UInt32}",
      { run, last },
    );
    expect(stored).toEqual({ inserts: String(last + 1), rows: String((last + 1) * 50) });
  }
  await opened.close();
});

test("a folder in use is refused with a sentence that names it, and is free after SIGKILL", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-in-use-"));
  const holder = startInserting(folder, 0);
  await until(() => holder.acknowledged() >= 0, { timeoutMs: 30_000, what: "the holder's first insert" });
  await expect(openClickHouse({ path: folder })).rejects.toMatchObject({
    code: "DATA_FOLDER_IN_USE",
    action: "halt",
    message: `the data folder ${folder} is in use by process ${holder.child.pid}: stop that process or choose another folder`,
  });
  holder.child.kill("SIGKILL");
  await once(holder.child, "close");
  const opened = await openClickHouse({ path: folder });
  expect(Number((await opened.store.select<{ n: string }>("SELECT count() AS n FROM crash"))[0]?.n)).toBeGreaterThan(0);
  await opened.close();
});
