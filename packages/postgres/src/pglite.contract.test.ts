import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeControlStore } from "@tallyhouse/testkit";
import { openPglite } from "./pglite.ts";

const parent = mkdtemp(join(tmpdir(), "tallyhouse-pglite-"));

describeControlStore("PGlite in this process", async () => openPglite({ path: join(await parent, "postgres") }));
