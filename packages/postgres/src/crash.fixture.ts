/** Run by crash.test.ts as a process of its own: commits until it is killed, and says each commit that was acknowledged. */
import { openPglite } from "./pglite.ts";

const [, , path = "", run = "0"] = process.argv;
const { store } = await openPglite({ path });
await store.execute("CREATE TABLE IF NOT EXISTS crash (run int, n int, half int, PRIMARY KEY (run, n, half))");
for (let n = 0; ; n += 1) {
  await store.transaction(async (tx) => {
    await tx.query("INSERT INTO crash VALUES ($1, $2, 1)", [Number(run), n]);
    await tx.query("INSERT INTO crash VALUES ($1, $2, 2)", [Number(run), n]);
  });
  process.stdout.write(`${n}\n`);
}
