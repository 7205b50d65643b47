/** One aggregator of a schedule: the product, on ports that do nothing before the schedule says so. */
import { type Dice, Violation, type VirtualTime } from "@tallyhouse/testkit";
import { TallyhouseError, type EventLog } from "@tallyhouse/domain";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { Aggregator } from "../../aggregator.ts";
import type { BackfillStore, PendingBackfill } from "../../backfill-store.ts";
import type { AggregatorConfig } from "../../config.ts";
import type { ResultStore } from "../../result-store.ts";
import type { ProgressRow, ResultTable, Row } from "../../tables.ts";
import type { ModelBackfills } from "../model-backfills.ts";
import type { ModelStore } from "../model-store.ts";
import type { Checks } from "./checks.ts";
import type { PortCalls } from "./port-calls.ts";
import { SimConsumer, type SimLog } from "./sim-log.ts";

const logger = createLogger({ level: "silent", name: "simulation" });

/** What all processes of a schedule share. */
export interface World {
  readonly dice: Dice;
  readonly time: VirtualTime;
  readonly log: SimLog;
  readonly model: ModelStore;
  readonly backfills: ModelBackfills;
  readonly checks: Checks;
  readonly calls: PortCalls;
  readonly config: AggregatorConfig;
  /** When the log receives a record that is appended now: its leader's clock, which steps back when leadership moves. */
  receivedAt(partition: number): number;
  /** Ends the schedule. */
  violated(error: Error): void;
}

/** An aggregator that runs. */
export class SimProcess {
  readonly name: string;
  readonly consumer: SimConsumer;
  /** Whether it takes part in rebalances: one that does not still believes what it was told before. */
  isInGroup = true;
  /** The step of the schedule at which it is awake again. */
  frozenUntil = 0;
  state: "running" | "stopping" | "ended" = "running";
  readonly aggregator: Aggregator;
  /** Progress of every partition when it began. */
  readonly storedAtStart: readonly number[];
  /** Why it ended, when it was not asked to. */
  failure: unknown = null;
  readonly #stop = new AbortController();

  constructor(name: string, world: World, input: { storedAtStart: readonly number[]; clockSkewMs: number }) {
    this.name = name;
    this.storedAtStart = input.storedAtStart;
    this.consumer = new SimConsumer(world.log);
    this.aggregator = new Aggregator(world.config, {
      log: logOf(this, world),
      store: storeOf(name, world),
      backfills: backfillsOf(name, world),
      clock: { now: () => world.time.now() + input.clockSkewMs },
      random: () => world.dice.share(),
      logger,
      metrics: createMetrics(),
    });
    void Promise.allSettled([this.aggregator.run(this.#stop.signal)]).then(([end]) => {
      this.state = "ended";
      if (end.status === "rejected") this.failure = end.reason;
      return end;
    });
  }

  /** Asks it to end: it stores what it folded, if it can. */
  stop(): void {
    this.state = "stopping";
    this.consumer.assign([]);
    this.#stop.abort();
  }

  /** Nothing it calls is answered from now on; its loops end without an effect. */
  die(): void {
    this.state = "ended";
    this.consumer.subscriber = null;
    this.#stop.abort();
  }

  /** Whether it ended as a process may when its stores are away for ten minutes. */
  endedByOutage(): boolean {
    return this.failure instanceof TallyhouseError && this.failure.action === "retry";
  }
}

/** `committed` is no method of the port: only a fault that starts at the group's offset looks there. */
function logOf(process: SimProcess, world: World): EventLog & { committed(partition: number): number | null } {
  const { calls, log } = world;
  const { name, consumer } = process;
  const append = async (records: Parameters<EventLog["append"]>[0]): Promise<void> => {
    for (const record of records) log.append(world.receivedAt(record.partition), record);
  };
  return {
    name: "sim-log",
    partitionCount: log.partitions.length,
    append: (records) =>
      calls.issue(name, `append ${records.length}`, {
        whole: () => append(records),
        half: () => append(records.filter(() => world.dice.chance(0.5))),
      }),
    async subscribe(subscriber) {
      consumer.subscriber = subscriber;
      consumer.assign(consumer.owned);
    },
    committed: (partition) => log.committed.get(partition) ?? null,
    seek: (partition, offset) => consumer.seek(partition, offset),
    bounds: (partition) =>
      calls.issue(name, `bounds ${partition}`, {
        whole: async () => {
          const { earliestOffset, entries } = log.at(partition);
          return { earliestOffset, endOffset: entries.length };
        },
      }),
    commitAdvisory: (offsets) =>
      calls.issue(name, "commitAdvisory", {
        whole: async () => {
          for (const [partition, offset] of offsets) log.committed.set(partition, offset);
        },
      }),
  };
}

/** A port on the model whose reads do what the model does, whatever they are called; the writes are given. */
function portOn<Port extends object>(name: string, world: World, input: { model: Port; writes: Partial<Port> }): Port {
  const { model, writes } = input;
  return new Proxy(model, {
    get(target, method) {
      if (Object.hasOwn(writes, method)) return Reflect.get(writes, method);
      const read = Reflect.get(target, method) as (...given: unknown[]) => Promise<unknown>;
      const whole = (given: unknown[]) => () => read.apply(target, given);
      return (...given: unknown[]) => world.calls.issue(name, String(method), { whole: whole(given) });
    },
  });
}

/** What a check throws ends the schedule, whatever the product makes of it. */
function guarded<Value>(world: World, check: () => Value): Value {
  try {
    return check();
  } catch (error) {
    world.violated(error as Error);
    throw error;
  }
}

/** Makes rows visible. */
async function land(world: World, table: ResultTable, rows: readonly Row[]): Promise<void> {
  try {
    await world.model.insertRows(table, rows);
  } catch (error) {
    world.violated(new Violation("G3", (error as Error).message));
    throw error;
  }
  world.checks.landed(table, rows);
}

function insert(name: string, world: World): (table: ResultTable, rows: readonly Row[]) => Promise<void> {
  return (table, rows) => {
    guarded(world, () => world.checks.sent(table, rows));
    return world.calls.issue(name, `insert ${table} ${rows.length}`, {
      whole: () => land(world, table, rows),
      half: () => land(world, table, someOf(rows, world)),
    });
  };
}

function someOf<Item>(items: readonly Item[], { dice }: World): Item[] {
  return items.filter(() => dice.chance(0.5));
}

function storeOf(name: string, world: World): ResultStore {
  const { calls, checks, model } = world;
  const record = async (rows: readonly ProgressRow[]): Promise<void> => {
    guarded(world, () => rows.forEach((row) => checks.progress(row)));
    await model.recordProgress(rows);
  };
  const writes = {
    insertRows: insert(name, world),
    recordProgress: (rows: readonly ProgressRow[]): Promise<void> => {
      const text = rows.map(({ partition, nextOffset }) => `${partition}:${nextOffset}`).join(" ");
      return calls.issue(name, `progress ${text}`, {
        whole: () => record(rows),
        half: () => record(someOf(rows, world)),
      });
    },
  };
  return portOn<ResultStore>(name, world, { model, writes });
}

function backfillsOf(name: string, world: World): BackfillStore {
  const { backfills, calls, checks } = world;
  const record = async (done: readonly PendingBackfill[]): Promise<void> => {
    guarded(world, () => done.forEach(({ partition, version }) => checks.backfilled(partition, version)));
    await backfills.recordBackfills(done);
  };
  const writes = {
    insertLane: insert(name, world),
    recordBackfills: (done: readonly PendingBackfill[]): Promise<void> =>
      calls.issue(name, `backfilled ${done.length}`, {
        whole: () => record(done),
        half: () => record(someOf(done, world)),
      }),
  };
  return portOn<BackfillStore>(name, world, { model: backfills, writes });
}
