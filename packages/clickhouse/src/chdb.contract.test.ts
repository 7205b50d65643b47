import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeAnalyticsStore } from "@tallyhouse/testkit";
import { vi } from "vitest";
import { openClickHouse } from "./open.ts";

// Before the engine reads it: on a machine in UTC a missing time zone setting would not show.
vi.stubEnv("TZ", "America/New_York");

const folder = mkdtemp(join(tmpdir(), "tallyhouse-chdb-"));

describeAnalyticsStore("chDB in this process", async () => openClickHouse({ path: await folder }));
