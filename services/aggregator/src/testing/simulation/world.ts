/** The world of one schedule: what all its processes share, and how it gets from one step to the next. */
import { type Dice, settled, Violation, VirtualTime } from "@tallyhouse/testkit";
import type { AggregatorConfig } from "../../config.ts";
import { ModelBackfills } from "../model-backfills.ts";
import { ModelStore } from "../model-store.ts";
import { config, NOON, STREAM } from "../scenario.ts";
import { Checks } from "./checks.ts";
import { CALM, PortCalls } from "./port-calls.ts";
import { SimProcess, type World } from "./process.ts";
import type { ReferenceLimits } from "./reference.ts";
import { SimLog } from "./sim-log.ts";

/** Steps after which a schedule that should have come to its end has not, and never will: ten times what is usual. */
const SETTLE_STEPS_MAX = 20_000;

/** Something that may happen next. */
export interface Move {
  readonly weight: number;
  readonly make: () => void | Promise<void>;
}

/** Aggregators, their log and their store; nothing moves but by {@link SimWorld.makeStep}. */
export class SimWorld implements World {
  readonly dice: Dice;
  readonly time = new VirtualTime(NOON);
  readonly log: SimLog;
  readonly model = new ModelStore();
  readonly backfills = new ModelBackfills(this.model);
  readonly checks: Checks;
  readonly calls: PortCalls;
  readonly config: AggregatorConfig;
  readonly limits: ReferenceLimits;
  readonly leaderSkewMs: number[];
  readonly hits = new Map<string, number>();
  processes: SimProcess[] = [];
  started = 0;
  step = 0;
  /** Whether the log was damaged, and a halt is what everybody waits for. */
  isDamaged = false;
  readonly #trace: (line: string) => void;
  #violation: Error | null = null;

  constructor(
    dice: Dice,
    limits: ReferenceLimits,
    input: { trace: (line: string) => void; overrides: Partial<AggregatorConfig> },
  ) {
    const { partitionCount, bookingWindowSeconds, horizonSeconds, maxAgeSeconds, maxAheadSeconds } = limits;
    this.dice = dice;
    this.limits = limits;
    this.#trace = input.trace;
    this.config = config({
      stream: { ...STREAM, partitionCount, bookingWindowSeconds },
      DEDUPE_HORIZON_HOURS: horizonSeconds / 3_600,
      MAX_AGE_HOURS: maxAgeSeconds / 3_600,
      MAX_AHEAD_SECONDS: maxAheadSeconds,
      ...input.overrides,
    });
    this.log = new SimLog(partitionCount);
    this.checks = new Checks({ log: this.log, model: this.model, limits });
    this.calls = new PortCalls(dice, { trace: (line) => this.trace(line), count: (fault) => this.count(fault) });
    this.leaderSkewMs = this.log.partitions.map(() => 0);
  }

  /** A schedule that meets no fault shows nothing: what happened is counted. */
  count(fault: string): void {
    this.hits.set(fault, (this.hits.get(fault) ?? 0) + 1);
  }

  trace(line: string): void {
    this.#trace(`${this.step} ${line}`);
  }

  receivedAt(partition: number): number {
    return Math.max(1, this.time.now() + (this.leaderSkewMs[partition] ?? 0));
  }

  violated(error: Error): void {
    this.#violation ??= error;
  }

  async makeStep(moves: readonly Move[]): Promise<void> {
    this.step += 1;
    await this.dice.weighted(moves).make();
    await settled();
    // First: the process that broke the guarantee has ended by it.
    if (this.#violation !== null) throw this.#violation;
    this.#noteEnds();
  }

  start(clockSkewMs = 0): SimProcess {
    this.started += 1;
    const name = `p${this.started}`;
    this.trace(`start ${name}`);
    const storedAtStart = this.log.partitions.map((_, partition) => this.checks.storedOffset(partition));
    const process = new SimProcess(name, this, { storedAtStart, clockSkewMs });
    this.processes.push(process);
    return process;
  }

  async kill(process: SimProcess): Promise<void> {
    this.trace(`kill ${process.name}`);
    this.count("a process is killed");
    process.die();
    await this.calls.abandon(process.name);
    this.processes = this.processes.filter((other) => other !== process);
  }

  deliver({ consumer, partition }: { consumer: SimProcess["consumer"]; partition: number }): void {
    this.trace(`deliver ${partition}`);
    consumer.deliver(partition, this.dice);
  }

  /** Fair weather and one new process that owns everything: it must come to the end of the log. All others sleep. */
  async settle(): Promise<void> {
    this.calls.weather = CALM;
    this.leaderSkewMs.fill(0);
    for (const process of this.processes) {
      process.isInGroup = false;
      process.frozenUntil = Infinity;
    }
    const owner = this.own();
    for (let steps = 0; !(await this.isStored()); steps += 1) {
      if (steps > SETTLE_STEPS_MAX) throw new Violation("G9", "the log's end is never stored");
      await this.advance(owner);
    }
  }

  /** A new process that owns every partition. */
  own(): SimProcess {
    const owner = this.start();
    owner.consumer.assign(this.log.partitions.map((_, partition) => partition));
    return owner;
  }

  /** The next thing that this process can do; time goes on when it can do nothing. */
  async advance(owner: SimProcess): Promise<void> {
    const calls = this.calls.waiting(new Set([owner.name]));
    const ready = owner.consumer.deliverable();
    const make = (): void | Promise<void> => {
      if (calls.length > 0) return this.calls.proceed(this.dice.pick(calls));
      if (ready.length > 0) return this.deliver({ consumer: owner.consumer, partition: this.dice.pick(ready) });
      return this.time.advanceTo(this.time.nextTimerAt() ?? this.time.now() + 1);
    };
    await this.makeStep([{ weight: 1, make }]);
  }

  async isStored(): Promise<boolean> {
    for (const [partition, { entries }] of this.log.partitions.entries()) {
      const progress = await this.model.readProgress(partition);
      if (progress?.nextOffset !== entries.length) return false;
    }
    return this.checks.isBackfilled();
  }

  async landEverything(): Promise<void> {
    for (const process of this.processes) await this.kill(process);
    while (this.calls.lateCount > 0) await this.calls.landLate();
    if (this.#violation !== null) throw this.#violation;
  }

  #noteEnds(): void {
    for (const process of this.processes) {
      if (process.state !== "ended") continue;
      if (process.failure !== null && !process.endedByOutage() && !this.isDamaged)
        throw new Violation("G1", `${process.name} ended with ${String((process.failure as Error).stack)}`);
      this.trace(`${process.name} ended`);
    }
    this.processes = this.processes.filter(({ state }) => state !== "ended");
  }
}
