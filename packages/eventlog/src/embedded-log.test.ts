import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventLogContract, type EventLogUnderTest } from "@tallyhouse/testkit";
import { openEmbeddedLog } from "./embedded-log.ts";

for (const fsync of ["always", "interval"] as const) {
  eventLogContract(`embedded, fsync ${fsync}`, async ({ partitionCount }): Promise<EventLogUnderTest> => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-log-"));
    let nowMs = 1_700_000_000_000;
    const clock = { now: () => (nowMs += 1) };
    // Small segments: the suite's larger tests then cross from one to the next.
    const open = () =>
      openEmbeddedLog({ folder, name: "usage", partitionCount, clock, fsync, segmentBytesMax: 65_536 });
    let current = await open();
    return {
      opened: current,
      now: () => clock.now(),
      reopen: async () => {
        await current.close();
        current = await open();
        return current;
      },
      dispose: async () => {
        await current.close();
        await rm(folder, { recursive: true });
      },
    };
  });
}
