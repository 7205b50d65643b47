/** Run by crash.test.ts as a process of its own: inserts until it is killed, and says each insert that was acknowledged. */
import { openClickHouse } from "./open.ts";

/** Rows of one insert. */
const ROWS = 50;

const { store } = await openClickHouse({ path: process.argv[2] ?? "" });
await store.execute(
  `CREATE TABLE IF NOT EXISTS crash (run UInt16, n UInt32, part UInt16, text String)
  ENGINE = MergeTree PARTITION BY part % 3 ORDER BY (run, n, part) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
);
const run = Number(process.argv[3]);
for (let n = 0; ; n += 1) {
  const rows = Array.from({ length: ROWS }, (_, part) => [run, n, part, `row ${n}/${part}`]);
  await store.insert({ table: "crash", columns: ["run", "n", "part", "text"], rows });
  process.stdout.write(`${n}\n`);
}
