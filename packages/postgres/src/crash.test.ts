import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { openPglite } from "./pglite.ts";

const FIXTURE = fileURLToPath(new URL("./crash.fixture.ts", import.meta.url));
/** Acknowledged commits to wait for before each kill: another number each time, so that the kill meets other moments. */
const KILLS_AFTER = [1, 150, 777];

/** Two first starts and three restarts: ten seconds alone, a minute on a machine that does five other things. */
const TEST_TIMEOUT_MS = 180_000;

/** Starts the committing process; `acknowledged` holds the last number it said. */
function startCommitting(
  path: string,
  run: number,
): { child: ChildProcessByStdio<null, Readable, null>; acknowledged: () => number } {
  const child = spawn(process.execPath, [FIXTURE, path, String(run)], { stdio: ["ignore", "pipe", "ignore"] });
  let last = -1;
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    last = Number(lines.at(-1) ?? last);
  });
  return { child, acknowledged: () => last };
}

test(
  "G1 a kill while the database is made leaves nothing in the way, and every acknowledged commit outlives a kill, whole",
  async () => {
    const path = join(await mkdtemp(join(tmpdir(), "tallyhouse-crash-")), "postgres");
    const starting = startCommitting(path, 0);
    await until(() => existsSync(join(path, "base")), { timeoutMs: 40_000, what: "half a database" });
    starting.child.kill("SIGKILL");
    await once(starting.child, "close");
    expect(existsSync(join(path, "tallyhouse-complete"))).toBe(false);

    const acknowledged: number[] = [];
    for (const [run, kills] of KILLS_AFTER.entries()) {
      const writer = startCommitting(path, run);
      await until(() => writer.acknowledged() >= kills, { timeoutMs: 40_000, what: `${kills} acknowledged commits` });
      writer.child.kill("SIGKILL");
      // `close`, not `exit`: what it said before it died is read to the end.
      await once(writer.child, "close");
      acknowledged.push(writer.acknowledged());
    }
    const opened = await openPglite({ path });
    for (const [run, last] of acknowledged.entries()) {
      const stored = await opened.store.query(
        "SELECT count(*) FILTER (WHERE n <= $2) AS known, count(*) % 2 AS halves FROM crash WHERE run = $1",
        [run, last],
      );
      expect(stored).toEqual([{ known: String((last + 1) * 2), halves: "0" }]);
    }
    await opened.close();
  },
  TEST_TIMEOUT_MS,
);
