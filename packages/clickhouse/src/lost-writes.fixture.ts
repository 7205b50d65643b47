/**
 * Run by lost-writes.test.ts as a process of its own whose files may not grow beyond a limit: write() then fails as on a full disk.
 * Says what became of its statements, one JSON text a line. The rows are small, what the engine writes of them is large.
 */
import { pause } from "@tallyhouse/runtime";
import { Session } from "chdb";
import { openClickHouse } from "./open.ts";

const [, , path = "", what] = process.argv;
const { store } = await openClickHouse({ path });
const say = (line: unknown): boolean => process.stdout.write(`${JSON.stringify(line)}\n`);
const insert = async (first: number, count: number): Promise<void> => {
  const rows = Array.from({ length: count }, (_, index) => [BigInt(first + index)]);
  await store.insert({ table: "t", columns: ["n"], rows });
  say({ acknowledged: count });
};

await store.execute(`CREATE TABLE t (n UInt64, text String DEFAULT repeat(toString(n), 500) CODEC(NONE))
  ENGINE = MergeTree ORDER BY n SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`);
// Each part is below the limit; two of them together are not.
await insert(100, 400);
await insert(500, 400);
try {
  if (what === "insert") await insert(10_000, 2_000);
  else {
    // Not through the store, as the engine's own merges: nobody waits for it.
    new Session(path).query("OPTIMIZE TABLE t FINAL");
    say({ merged: true });
    // time passes here: the watch has to end this process.
    await pause(60_000);
  }
} catch (error) {
  const { code, action } = error as { code?: string; action?: string };
  say({ code, action });
  process.exit(3);
}
