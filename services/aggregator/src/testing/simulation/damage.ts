/** Damage to the log after everything was stored: whoever opens the partition must halt, not go on with what is there. */
import { Violation } from "@tallyhouse/testkit";
import { type ControlFact, encodeControl, TallyhouseError } from "@tallyhouse/domain";
import { CONTROL_KEY } from "../scenario.ts";
import type { SimWorld } from "./world.ts";

const TICK: ControlFact = { kind: "tick" };
/** Steps of an open and its verification, ten times over. */
const STEPS_MAX = 2_000;

/** I10. @throws {Violation} when a new process does not halt. */
export async function damage(world: SimWorld): Promise<void> {
  const { dice, log } = world;
  const partition = dice.below(log.partitions.length);
  const stored = log.at(partition);
  const end = stored.entries.length;
  const append = (count: number): void => {
    for (let n = 0; n < count; n += 1)
      log.append(world.receivedAt(partition), encodeControl({ fact: TICK, partition, key: CONTROL_KEY }));
  };
  // What retention deleted cannot be compared, so there must be something left of it.
  const canBeCut = end - stored.earliestOffset >= 2;
  const kind = dice.pick(canBeCut ? (["gap", "truncated", "re-created"] as const) : (["gap"] as const));
  if (kind === "gap") {
    append(3);
    stored.earliestOffset = end + 1;
  } else {
    const removedAt = stored.entries.at(-1)?.receivedAt ?? 0;
    stored.entries.length = end - 1;
    // Later than the record that was there, whatever the leader's clock was then: equal records at one offset are the same log.
    const behindMs = Math.max(0, removedAt - world.receivedAt(partition));
    world.time.advanceTo(world.time.now() + behindMs + 60_000);
    if (kind === "re-created") append(3);
  }
  world.isDamaged = true;
  world.trace(`damage: ${kind} in partition ${partition}`);
  world.count(`damage: ${kind}`);
  const process = world.own();
  for (let steps = 0; process.state !== "ended"; steps += 1) {
    if (steps > STEPS_MAX) throw new Violation(kind === "gap" ? "G1" : "G3", `a log with a ${kind} end does not halt`);
    await world.advance(process);
  }
  const { failure } = process;
  if (!(failure instanceof TallyhouseError) || failure.action !== "halt")
    throw new Violation("G9", `a damaged log ends a process with ${String(failure)}`);
}
