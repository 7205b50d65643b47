import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { parseFigures } from "./options.ts";
import { type StreamedEvent, usageStream } from "./usage-stream.ts";

/** It opens the engine and PGlite, and audits: on a machine that other tests share that takes long. */
const TIMEOUT_MS = 180_000;
const SEED = 5;
const EVENTS = 2_000;
const BENCH = new URL("bench-aggregate.ts", import.meta.url).pathname;

test(
  "bench:aggregate proves what it measured, says so on its last line, and leaves nothing behind",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-test-"));
    try {
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [BENCH, "--events", String(EVENTS), "--seed", String(SEED)],
        {
          env: { PATH: process.env["PATH"], TMPDIR: folder },
        },
      );
      const stream = usageStream({ seed: SEED, nowAt: 0 });
      const sent = Array.from({ length: EVENTS }, () => stream.next().value as StreamedEvent);
      expect(parseFigures(stdout)).toMatchObject({
        bench: "aggregate",
        log: "embedded",
        seed: SEED,
        events: EVENTS,
        counted: sent.filter(({ isRepeat }) => !isRepeat).length,
        proof: "counts, sum and audit A1 to A8",
        isProven: true,
        differences: [],
      });
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  TIMEOUT_MS,
);
