/** A smaller `npm run bench:dedupe`: a process that is killed, the real engine, every identity asked for. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@tallyhouse/runtime";
import { expect, test } from "vitest";
import { rebuildAndCheck, writeAndKill } from "./testing/identity-check.ts";
import { planOf } from "./testing/identity-shapes.ts";

test("G2 300,000 identities that resemble each other: none forgotten, none mistaken, after a kill, a rebuild, growth and expiry", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-rebuild-"));
  // The store keeps identities for 45 days of a real clock.
  const plan = planOf({ identities: 300_000, seed: 1, clockAt: Math.floor(systemClock.now() / 1_000) });
  await writeAndKill(folder, plan);
  const figures = await rebuildAndCheck(folder, plan, 16);
  expect(figures).toMatchObject({ identities: 300_000, checkedByEngine: plan.written + plan.later });
  expect(figures.checkedByDigester).toBe(Math.ceil((plan.written + plan.later) / 16));
  expect([figures.falsePositives, figures.falseNegatives]).toEqual([0, 0]);
  expect(figures.bytesPerIdentityWorst).toBeLessThanOrEqual(30);
  await rm(folder, { recursive: true });
}, 180_000);
