/** One seeded schedule: processes come and go, calls fail and land late, clocks step back; at the end everything must add up. */
import { config, NOON, STREAM } from "../scenario.ts";
import { ModelBackfills } from "../model-backfills.ts";
import { ModelStore } from "../model-store.ts";
import { Checks } from "./checks.ts";
import { Dice } from "./dice.ts";
import { CALM, PortCalls, type Weather } from "./port-calls.ts";
import { SimProcess, type World } from "./process.ts";
import type { ReferenceLimits } from "./reference.ts";
import { SimLog } from "./sim-log.ts";
import { settled, VirtualTime } from "./virtual-time.ts";
import { Violation } from "./violation.ts";
import { Workload } from "./workload.ts";

const MINUTE_MS = 60_000;
/** Steps after which a schedule that should have come to its end has not, and never will: ten times what is usual. */
const SETTLE_STEPS_MAX = 20_000;

/** What a schedule was, when nothing was violated. */
export interface ScheduleSummary {
  readonly records: number;
  readonly steps: number;
  readonly processes: number;
}

interface Move {
  readonly weight: number;
  readonly make: () => void | Promise<void>;
}

/** Runs the schedule of the seed. @throws {Violation} */
export async function runSchedule(seed: number, trace: (line: string) => void = () => {}): Promise<ScheduleSummary> {
  const schedule = new Schedule(seed, trace);
  const restoreTimers = schedule.time.install();
  try {
    return await schedule.run();
  } finally {
    restoreTimers();
  }
}

class Schedule implements World {
  readonly dice: Dice;
  readonly time = new VirtualTime(NOON);
  readonly log: SimLog;
  readonly model = new ModelStore();
  readonly backfills = new ModelBackfills(this.model);
  readonly checks: Checks;
  readonly calls: PortCalls;
  readonly config: World["config"];
  readonly #trace: (line: string) => void;
  readonly #limits: ReferenceLimits;
  readonly #workload: Workload;
  readonly #leaderSkewMs: number[];
  readonly #weather: Weather;
  #recordsLeft: number;
  #processes: SimProcess[] = [];
  #started = 0;
  #step = 0;
  #violation: Error | null = null;

  constructor(seed: number, trace: (line: string) => void) {
    this.dice = new Dice(seed);
    const { dice } = this;
    this.#trace = (line) => trace(`${this.#step} ${line}`);
    const horizonSeconds = dice.pick([1_800, 3_600, 7_200]);
    const maxAheadSeconds = 300;
    this.#limits = {
      partitionCount: dice.between(2, 4),
      bookingWindowSeconds: dice.pick([60, 300, 900]),
      horizonSeconds,
      maxAheadSeconds,
      maxAgeSeconds: horizonSeconds - maxAheadSeconds - dice.pick([0, 0, 300]),
    };
    const { partitionCount, bookingWindowSeconds, maxAgeSeconds } = this.#limits;
    this.config = config({
      stream: { ...STREAM, partitionCount, bookingWindowSeconds },
      DEDUPE_HORIZON_HOURS: horizonSeconds / 3_600,
      MAX_AGE_HOURS: maxAgeSeconds / 3_600,
      MAX_AHEAD_SECONDS: maxAheadSeconds,
      BUFFER_BYTES_MAX: dice.pick([4_096, 16_384, 2 ** 28]),
      FLUSH_BYTES_MAX: dice.pick([2_048, 4_096]),
    });
    this.log = new SimLog(partitionCount);
    this.checks = new Checks({ log: this.log, model: this.model, limits: this.#limits });
    this.calls = new PortCalls(dice, this.#trace);
    this.#workload = new Workload(dice, this.#limits, { startAt: NOON, correctable: () => this.checks.correctable() });
    this.#leaderSkewMs = this.log.partitions.map(() => 0);
    this.#weather = dice.pick([
      { failure: 0.02, late: 0.1 },
      { failure: 0.15, late: 0.4 },
      { failure: 0.05, late: 0.9 },
    ]);
    this.#recordsLeft = dice.between(60, 180);
  }

  async run(): Promise<ScheduleSummary> {
    this.calls.weather = this.#weather;
    while (this.#recordsLeft > 0) await this.#makeStep(this.#moves());
    await this.#settle();
    // What zombies and proxies still held lands now; and whoever opens after that must come to the same end.
    await this.#landEverything();
    await this.#settle();
    await this.checks.readSeals(this.dice);
    this.checks.atEnd();
    return { records: this.log.recordCount, steps: this.#step, processes: this.#started };
  }

  receivedAt(partition: number): number {
    return Math.max(1, this.time.now() + (this.#leaderSkewMs[partition] ?? 0));
  }

  violated(error: Error): void {
    this.#violation ??= error;
  }

  async #makeStep(moves: readonly Move[]): Promise<void> {
    this.#step += 1;
    await this.dice.weighted(moves).make();
    await settled();
    // First: the process that broke the guarantee has ended by it.
    if (this.#violation !== null) throw this.#violation;
    this.#noteEnds();
  }

  #moves(): Move[] {
    const { dice } = this;
    const awake = this.#processes.filter(({ frozenUntil }) => frozenUntil <= this.#step);
    const calls = this.calls.waiting(new Set(awake.map(({ name }) => name)));
    const readers = awake.flatMap(({ consumer }) => consumer.deliverable().map((partition) => ({ consumer, partition })));
    const isQuiet = calls.length === 0 && readers.length === 0;
    return [
      { weight: calls.length > 0 ? 60 : 0, make: () => this.calls.proceed(dice.pick(calls)) },
      { weight: readers.length > 0 ? 16 : 0, make: () => this.#deliver(dice.pick(readers)) },
      { weight: isQuiet ? 20 : 7, make: () => this.#produce() },
      { weight: isQuiet ? 40 : 10, make: () => this.#pass() },
      { weight: this.calls.lateCount > 0 ? 1.5 : 0, make: () => this.calls.landLate() },
      { weight: 0.8, make: () => this.checks.readSeals(dice) },
      ...this.#upheavals(),
    ];
  }

  #upheavals(): Move[] {
    const { dice } = this;
    const group = this.#processes.filter(({ isInGroup, state }) => isInGroup && state === "running");
    const any = this.#processes.length > 0;
    return [
      { weight: group.length < 2 ? (group.length === 0 ? 20 : 1) : 0.05, make: () => this.#start() },
      { weight: any ? 0.4 : 0, make: () => this.#kill(dice.pick(this.#processes)) },
      { weight: any ? 0.3 : 0, make: () => this.#freeze(dice.pick(this.#processes)) },
      { weight: group.length > 0 ? 0.25 : 0, make: () => this.#expel(dice.pick(group)) },
      { weight: group.length > 0 ? 0.2 : 0, make: () => this.#stop(dice.pick(group)) },
      { weight: 0.5, make: () => this.#rebalance() },
      { weight: 0.4, make: () => this.#moveLeader() },
      { weight: 0.15, make: () => this.#retain() },
    ];
  }

  #deliver({ consumer, partition }: { consumer: SimProcess["consumer"]; partition: number }): void {
    this.#trace(`deliver ${partition}`);
    consumer.deliver(partition, this.dice);
  }

  #produce(): void {
    const records = this.#workload.next(this.time.now());
    this.#recordsLeft -= 1;
    if (records === null) {
      this.log.appendMarker(this.dice.below(this.#limits.partitionCount));
      return;
    }
    for (const record of records) {
      const { partition } = record;
      this.#trace(`produce ${partition}:${this.log.at(partition).entries.length}`);
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
    this.#started += 1;
    const name = `p${this.#started}`;
    const clockSkewMs = this.dice.pick([0, 0, -30 * MINUTE_MS, 60 * MINUTE_MS]);
    this.#trace(`start ${name}`);
    const storedAtStart = this.log.partitions.map((_, partition) => this.checks.storedOffset(partition));
    const process = new SimProcess(name, this, { storedAtStart, clockSkewMs });
    this.#processes.push(process);
    this.#rebalance();
  }

  async #kill(process: SimProcess): Promise<void> {
    this.#trace(`kill ${process.name}`);
    process.die();
    await this.calls.abandon(process.name);
    this.#processes = this.#processes.filter((other) => other !== process);
  }

  #freeze(process: SimProcess): void {
    process.frozenUntil = this.#step + this.dice.pick([20, 100, 400]);
    this.#trace(`freeze ${process.name} until ${process.frozenUntil}`);
  }

  /** The group goes on without it, and nobody tells it: two owners from now on. */
  #expel(process: SimProcess): void {
    this.#trace(`expel ${process.name}`);
    process.isInGroup = false;
    if (this.dice.chance(0.5)) this.#freeze(process);
    this.#rebalance();
  }

  #stop(process: SimProcess): void {
    this.#trace(`stop ${process.name}`);
    process.isInGroup = false;
    process.stop();
    this.#rebalance();
  }

  #rebalance(): void {
    const members = this.#processes.filter(({ isInGroup, state }) => isInGroup && state === "running");
    if (members.length === 0) return;
    const owners = this.log.partitions.map(() => this.dice.pick(members));
    for (const member of members) {
      const partitions = owners.flatMap((owner, partition) => (owner === member ? [partition] : []));
      this.#trace(`assign ${member.name} [${partitions.join(" ")}]`);
      member.consumer.assign(partitions);
    }
  }

  /** Another broker leads the partition, and its clock is another one. */
  #moveLeader(): void {
    const partition = this.dice.below(this.#limits.partitionCount);
    this.#leaderSkewMs[partition] = this.dice.between(-20, 10) * MINUTE_MS;
    this.#trace(`leader of ${partition} is ${this.#leaderSkewMs[partition]} ms off`);
  }

  /** Old segments go: what was stored when the oldest living process began. Records outlive processes by days. */
  #retain(): void {
    const [oldest] = this.#processes;
    for (const [partition, stored] of this.log.partitions.entries()) {
      const limit = oldest?.storedAtStart[partition] ?? 0;
      if (limit > stored.earliestOffset) stored.earliestOffset = this.dice.between(stored.earliestOffset, limit);
    }
  }

  #noteEnds(): void {
    for (const process of this.#processes) {
      if (process.state !== "ended") continue;
      if (process.failure !== null && !process.endedByOutage())
        throw new Violation("G1", `${process.name} ended with ${String((process.failure as Error).stack)}`);
      this.#trace(`${process.name} ended`);
    }
    this.#processes = this.#processes.filter(({ state }) => state !== "ended");
  }

  /** Fair weather, one new process that owns everything: it must come to the end of the log. Others sleep. */
  async #settle(): Promise<void> {
    this.calls.weather = CALM;
    for (const process of this.#processes) process.isInGroup = false;
    this.#leaderSkewMs.fill(0);
    const sleepers = this.#processes;
    for (const process of sleepers) process.frozenUntil = Infinity;
    this.#start();
    const [owner] = this.#processes.slice(-1);
    for (let steps = 0; !(await this.#isStored()); steps += 1) {
      if (steps > SETTLE_STEPS_MAX || owner === undefined) throw new Violation("G9", "the log's end is never stored");
      const calls = owner === undefined ? [] : this.calls.waiting(new Set([owner.name]));
      const ready = owner.consumer.deliverable();
      if (calls.length > 0) await this.#makeStep([{ weight: 1, make: () => this.calls.proceed(this.dice.pick(calls)) }]);
      else if (ready.length > 0)
        await this.#makeStep([
          { weight: 1, make: () => this.#deliver({ consumer: owner.consumer, partition: this.dice.pick(ready) }) },
        ]);
      else
        await this.#makeStep([
          { weight: 1, make: () => this.time.advanceTo(this.time.nextTimerAt() ?? this.time.now() + 1) },
        ]);
    }
  }

  async #isStored(): Promise<boolean> {
    for (const [partition, { entries }] of this.log.partitions.entries()) {
      const progress = await this.model.readProgress(partition);
      if (progress?.nextOffset !== entries.length) return false;
    }
    return this.checks.isBackfilled();
  }

  async #landEverything(): Promise<void> {
    for (const process of this.#processes) await this.#kill(process);
    while (this.calls.lateCount > 0) await this.calls.landLate();
    if (this.#violation !== null) throw this.#violation;
  }
}
