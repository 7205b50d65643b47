/** Run by postgres-store.test.ts as a process of its own: connects, says so, and migrates when it is told to. */
import { once } from "node:events";
import { migratePostgres, openPostgres } from "@tallyhouse/postgres";

const [, , url = "", folder = ""] = process.argv;
const opened = await openPostgres({ url });
process.stdout.write("ready\n");
await once(process.stdin, "data");
process.stdout.write(`${JSON.stringify(await migratePostgres(opened.store, folder))}\n`);
await opened.close();
process.stdin.destroy();
