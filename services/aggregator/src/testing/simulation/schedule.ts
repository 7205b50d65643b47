/** One seeded schedule: processes come and go, calls fail and land late, clocks step back; at the end everything must add up. */
import { Dice } from "@tallyhouse/testkit";
import { NOON } from "../scenario.ts";
import { damage } from "./damage.ts";
import { type Weather } from "./port-calls.ts";
import type { SimProcess } from "./process.ts";
import { Workload } from "./workload.ts";
import { type Move, SimWorld } from "./world.ts";

const MINUTE_MS = 60_000;

/** What a schedule was, when nothing was violated. */
export interface ScheduleSummary {
  readonly records: number;
  readonly steps: number;
  readonly processes: number;
  /** How often each fault happened, and what became of the records. */
  readonly hits: ReadonlyMap<string, number>;
}

/** Runs the schedule of the seed. @throws {Violation} */
export async function runSchedule(seed: number, trace: (line: string) => void = () => {}): Promise<ScheduleSummary> {
  const schedule = new Schedule(new Dice(seed), trace);
  const restoreTimers = schedule.time.install();
  try {
    return await schedule.run();
  } finally {
    restoreTimers();
  }
}

class Schedule extends SimWorld {
  readonly #workload: Workload;
  readonly #weather: Weather;
  #recordsLeft: number;

  constructor(dice: Dice, trace: (line: string) => void) {
    const horizonSeconds = dice.pick([1_800, 3_600, 7_200]);
    const maxAheadSeconds = 300;
    const limits = {
      partitionCount: dice.between(2, 4),
      bookingWindowSeconds: dice.pick([60, 300, 900]),
      horizonSeconds,
      maxAheadSeconds,
      maxAgeSeconds: horizonSeconds - maxAheadSeconds - dice.pick([0, 0, 300]),
    };
    const overrides = {
      BUFFER_BYTES_MAX: dice.pick([4_096, 16_384, 2 ** 28]),
      FLUSH_BYTES_MAX: dice.pick([2_048, 4_096]),
    };
    super(dice, limits, { trace, overrides });
    this.#workload = new Workload(dice, limits, { startAt: NOON, correctable: () => this.checks.correctable() });
    this.#weather = dice.pick([
      { failure: 0.02, late: 0.1 },
      { failure: 0.15, late: 0.4 },
      { failure: 0.05, late: 0.9 },
    ]);
    this.#recordsLeft = dice.between(60, 180);
  }

  async run(): Promise<ScheduleSummary> {
    this.calls.weather = this.#weather;
    while (this.#recordsLeft > 0) await this.makeStep(this.#moves());
    await this.settle();
    // What zombies and proxies still held lands now; and whoever opens after that must come to the same end.
    await this.landEverything();
    await this.settle();
    await this.checks.readSeals(this.dice);
    this.checks.atEnd();
    for (const { fates } of this.checks.references)
      for (const { status, reason } of fates) this.count(`record: ${status} ${reason.replace(/:.*/, "")}`.trim());
    if (this.dice.chance(0.25)) await damage(this);
    return { records: this.log.recordCount, steps: this.step, processes: this.started, hits: this.hits };
  }

  #moves(): Move[] {
    const { dice } = this;
    const awake = this.processes.filter(({ frozenUntil }) => frozenUntil <= this.step);
    const calls = this.calls.waiting(new Set(awake.map(({ name }) => name)));
    const readers = awake.flatMap(({ consumer }) =>
      consumer.deliverable().map((partition) => ({ consumer, partition })),
    );
    const isQuiet = calls.length === 0 && readers.length === 0;
    return [
      { weight: calls.length > 0 ? 60 : 0, make: () => this.calls.proceed(dice.pick(calls)) },
      { weight: readers.length > 0 ? 16 : 0, make: () => this.deliver(dice.pick(readers)) },
      { weight: isQuiet ? 20 : 7, make: () => this.#produce() },
      { weight: isQuiet ? 40 : 10, make: () => this.#pass() },
      { weight: this.calls.lateCount > 0 ? 1.5 : 0, make: () => this.calls.landLate() },
      { weight: 0.8, make: () => this.checks.readSeals(dice) },
      ...this.#upheavals(),
    ];
  }

  #upheavals(): Move[] {
    const { dice } = this;
    const group = this.processes.filter(({ isInGroup, state }) => isInGroup && state === "running");
    const any = this.processes.length > 0;
    return [
      { weight: group.length < 2 ? (group.length === 0 ? 20 : 1) : 0.05, make: () => this.#start() },
      { weight: any ? 0.4 : 0, make: () => this.kill(dice.pick(this.processes)) },
      { weight: any ? 0.3 : 0, make: () => this.#freeze(dice.pick(this.processes)) },
      { weight: group.length > 0 ? 0.25 : 0, make: () => this.#expel(dice.pick(group)) },
      { weight: group.length > 0 ? 0.2 : 0, make: () => this.#stop(dice.pick(group)) },
      { weight: 0.5, make: () => this.#rebalance() },
      { weight: 0.4, make: () => this.#moveLeader() },
      { weight: 0.15, make: () => this.#retain() },
    ];
  }

  #produce(): void {
    const records = this.#workload.next(this.time.now());
    this.#recordsLeft -= 1;
    if (records === null) {
      this.log.appendMarker(this.dice.below(this.limits.partitionCount));
      return;
    }
    for (const record of records) {
      const { partition } = record;
      this.trace(`produce ${partition}:${this.log.at(partition).entries.length}`);
      this.log.append(this.receivedAt(partition), record);
    }
  }

  /** Mostly to the next timer, often by seconds, at times far beyond every horizon. */
  #pass(): void {
    const nextAt = this.time.nextTimerAt();
    const kind = this.dice.weighted([
      { weight: nextAt === null ? 0 : 70, of: () => nextAt ?? 0 },
      { weight: 22, of: () => this.time.now() + this.dice.below(MINUTE_MS) },
      { weight: 6, of: () => this.time.now() + this.dice.below(15 * MINUTE_MS) },
      { weight: 0.5, of: () => this.time.now() + this.dice.below(150 * MINUTE_MS) },
    ]);
    this.time.advanceTo(kind.of());
  }

  #start(): void {
    this.start(this.dice.pick([0, 0, -30 * MINUTE_MS, 60 * MINUTE_MS]));
    this.#rebalance();
  }

  #freeze(process: SimProcess): void {
    process.frozenUntil = this.step + this.dice.pick([20, 100, 400]);
    this.trace(`freeze ${process.name} until ${process.frozenUntil}`);
    this.count("a process sleeps");
  }

  /** The group goes on without it, and nobody tells it: two owners from now on. */
  #expel(process: SimProcess): void {
    this.trace(`expel ${process.name}`);
    this.count("a process is expelled and goes on");
    process.isInGroup = false;
    if (this.dice.chance(0.5)) this.#freeze(process);
    this.#rebalance();
  }

  #stop(process: SimProcess): void {
    this.trace(`stop ${process.name}`);
    this.count("a process stops");
    process.isInGroup = false;
    process.stop();
    this.#rebalance();
  }

  #rebalance(): void {
    const members = this.processes.filter(({ isInGroup, state }) => isInGroup && state === "running");
    if (members.length === 0) return;
    const owners = this.log.partitions.map(() => this.dice.pick(members));
    for (const member of members) {
      const partitions = owners.flatMap((owner, partition) => (owner === member ? [partition] : []));
      this.trace(`assign ${member.name} [${partitions.join(" ")}]`);
      member.consumer.assign(partitions);
    }
  }

  /** Another broker leads the partition, and its clock is another one. */
  #moveLeader(): void {
    const partition = this.dice.below(this.limits.partitionCount);
    this.leaderSkewMs[partition] = this.dice.between(-20, 10) * MINUTE_MS;
    this.count("a leader's clock is another one");
    this.trace(`leader of ${partition} is ${this.leaderSkewMs[partition]} ms off`);
  }

  /** Old segments go: what was stored when the oldest living process began. Records outlive processes by days. */
  #retain(): void {
    const [oldest] = this.processes;
    for (const [partition, stored] of this.log.partitions.entries()) {
      const limit = oldest?.storedAtStart[partition] ?? 0;
      if (limit <= stored.earliestOffset) continue;
      this.count("retention deletes");
      stored.earliestOffset = this.dice.between(stored.earliestOffset, limit);
    }
  }
}
