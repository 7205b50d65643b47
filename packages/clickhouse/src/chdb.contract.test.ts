import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeAnalyticsStore } from "@tallyhouse/testkit";
import { openClickHouse } from "./open.ts";

const folder = mkdtemp(join(tmpdir(), "tallyhouse-chdb-"));

describeAnalyticsStore("chDB in this process", async () => openClickHouse({ path: await folder }));
