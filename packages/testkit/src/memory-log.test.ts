import type { OpenedEventLog } from "@tallyhouse/domain";
import { eventLogContract } from "./event-log-suite.ts";
import { MemoryLog } from "./memory-log.ts";

const now = (): number => performance.timeOrigin + performance.now();

/** Receives at whole milliseconds that never step back. */
function clock(): { now(): number } {
  let last = 0;
  return {
    now: () => {
      last = Math.max(last, Math.floor(now()));
      return last;
    },
  };
}

function opened(log: MemoryLog): OpenedEventLog {
  return { log, failed: log.failed, close: async () => log.close() };
}

eventLogContract("memory", async ({ partitionCount }) => {
  const log = new MemoryLog({ partitionCount, clock: clock() });
  return {
    opened: opened(log),
    now,
    reopen: async () => {
      log.close();
      return opened(log.reader());
    },
    dispose: async () => log.close(),
  };
});
