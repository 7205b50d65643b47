import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { LogCollector, valuesOf } from "@tallyhouse/testkit";
import { expect, it } from "vitest";
import { openEmbeddedLog } from "./embedded-log.ts";

const KILLS = 6;

/** Runs the appending process until it acknowledged `count` values, then SIGKILLs it. Returns all that it acknowledged. */
async function appendAndKill(folder: string, first: number, count: number): Promise<number[]> {
  const program = join(import.meta.dirname, "fixtures", "append-until-killed.ts");
  const child = spawn(process.execPath, [program, folder, String(first)], { stdio: ["ignore", "pipe", "inherit"] });
  const acknowledged: number[] = [];
  const exited = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    acknowledged.push(Number(line));
    if (acknowledged.length === count) child.kill("SIGKILL");
  }
  const [, signal] = await exited;
  expect(signal).toBe("SIGKILL");
  return acknowledged;
}

it("G1 keeps everything acknowledged through SIGKILL after SIGKILL, without a gap", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-log-"));
  const acknowledged: number[] = [];
  for (let kill = 0; kill < KILLS; kill += 1) {
    acknowledged.push(...(await appendAndKill(folder, kill * 1_000_000, 1 + kill * 150)));
  }
  const clock = { now: () => 0 };
  const opened = await openEmbeddedLog({ folder, name: "usage", partitionCount: 2, clock });
  const { log } = opened;
  const collector = new LogCollector();
  await collector.subscribeTo(opened);
  const read: string[] = [];
  for (const partition of [0, 1]) {
    collector.seek(partition, 0);
    const { endOffset } = await log.bounds(partition);
    const entries = await collector.untilOffset(partition, endOffset);
    expect(entries.map((entry) => entry.offset)).toEqual(Array.from({ length: endOffset }, (_, i) => i));
    read.push(...valuesOf(entries));
  }
  const found = new Set(read);
  expect(found.size).toBe(read.length);
  expect(acknowledged.filter((value) => !found.has(String(value)))).toEqual([]);
  await opened.close();
  await rm(folder, { recursive: true });
});
