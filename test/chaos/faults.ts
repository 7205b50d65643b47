/** Carries out the faults of a plan on a running world. */
import { randomUUID } from "node:crypto";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import { type TopicOffsets } from "./group-offsets.ts";
import type { LocalServer } from "@tallyhouse/infra/local/local-server.ts";
import { pause } from "@tallyhouse/runtime";
import { seededRandom } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import type { ProcessName, World } from "../integration/world.ts";
import { SupervisedProcess } from "../support/supervised-process.ts";
import type { InsertProxy, Trap, Verdict } from "./insert-proxy.ts";
import type { LateMeters } from "./late-meters.ts";
import { type BackfillStep, type Killed, nameOf, type PlannedFault, type Point, type SystemCall } from "./plan.ts";
import type { RecoveryWatch } from "./recovery.ts";
import { type ChaosServers, dyingAt, killAtCall } from "./servers.ts";
import { VictimLocks } from "./victim-locks.ts";

const HOUR_SHIFT_MS = 3_600_000;
/** A little less than the hour by which a record may be ahead of our clock before the partition halts, as it should. */
const CLOCK_MARGIN_MS = 60_000;
/** Kafka's session is 10 s; a successor then needs some for its loads. */
const TAKEOVER_MS = 14_000;
const TRAP_TIMEOUT_MS = 45_000;
/** The activation goes through the console, the log and a flush first, each of which another fault may hold up. */
const BACKFILL_TRAP_TIMEOUT_MS = 180_000;
/** Only the pages of a backfill are limited so. */
const PAGE_STATEMENT = "LIMIT {rowsMax:";
/** Of a minute each. */
const READY_ATTEMPTS_MAX = 10;
const CALL_TIMEOUT_MS = 20_000;
/** Calls of one thread of ClickHouse until it dies: within some seconds of load. */
const CALL_NUMBER_MAX: Readonly<Record<SystemCall, number>> = {
  rename: 8,
  fdatasync: 40,
  write: 40,
  openat: 40,
  mkdir: 8,
  unlink: 8,
};
/** Fewer: of one thread, until it answers. */
const START_CALL_NUMBER_MAX: Readonly<Record<SystemCall, number>> = {
  rename: 2,
  fdatasync: 3,
  write: 20,
  openat: 200,
  mkdir: 3,
  unlink: 3,
};
const RECOVERY_KILL_MAX_MS = 1_200;
const TWIN_MS = 10_000;
const REFUSE_MS = 3_000;
const DISK_FULL_MS = 3_000;
/** The watch of the front looks every 5 s. */
const LOST_WRITES_SEEN_MS = 6_000;
const SHIFTED_CLOCK = new URL("shifted-clock.fixture.ts", import.meta.url).href;

export const AGGREGATORS = ["aggregator1", "aggregator2"] as const;
type AggregatorName = (typeof AGGREGATORS)[number];

/** What faults are carried out on. */
export interface FaultTarget {
  readonly world: World;
  readonly servers: ChaosServers;
  readonly proxies: Readonly<Record<AggregatorName, InsertProxy>>;
  readonly watch: RecoveryWatch;
  readonly offsets: TopicOffsets;
  readonly lateMeters: LateMeters;
}

/** Runs one fault after another, several at once; counts the hits of each point. */
export class Faults {
  /** Name of a point → how often it was hit. */
  readonly hits = new Map<string, number>();
  /** Faults that found nothing to hit in time. */
  readonly misses: string[] = [];
  /** Processes and servers that got SIGKILL; a fault may kill none, one or two. */
  sigkills = 0;
  readonly #target: FaultTarget;
  readonly #locks = new VictimLocks();

  constructor(target: FaultTarget) {
    this.#target = target;
  }

  /** Resolves when the fault is over and what it hit has been started again. */
  async run(fault: PlannedFault): Promise<void> {
    const name = nameOf(fault.point);
    const random = seededRandom(fault.seed);
    const isHit = await this.#carryOut(fault.point, { name, random });
    if (isHit) this.#count(name);
    else this.misses.push(`${fault.number} ${name}`);
  }

  #count(name: string): void {
    this.hits.set(name, (this.hits.get(name) ?? 0) + 1);
  }

  #carryOut(point: Point, how: Context): Promise<boolean> {
    switch (point.kind) {
      case "kill":
        return this.#locks.hold([point.victim], () => this.#kill(point.victim, how));
      case "flush":
        return this.#onAggregator(how, (name) => this.#killInFlush(name, point, how));
      case "open":
        return this.#onAggregator(how, (name) => this.#killInOpen(name, point.table, how));
      case "backfill":
        return this.#locks.hold(["late meter"], () =>
          this.#onAggregator(how, (name) => this.#killInBackfill(name, point.step, how)),
        );
      case "call":
        return this.#locks.hold(["clickhouse"], () => this.#killAtCall(point, how));
      case "zombie":
        return this.#withoutOne(() => this.#onAggregator(how, (name) => this.#zombie(name, point.stage, how)));
      case "twin":
        return this.#locks.hold(["twin"], () => this.#twin(how));
      case "proxy":
        return point.how === "hold"
          ? this.#withoutOne(() => this.#onAggregator(how, (name) => this.#proxyFault(name, "hold", how)))
          : this.#onAggregator(how, (name) => this.#proxyFault(name, point.how, how));
      case "offsets":
        return this.#locks.hold([...AGGREGATORS], () => this.#moveOffsets(point.how, how));
      case "clock":
        return this.#wrongClock(point.hours, how);
      case "disk-full":
        return this.#locks.hold(["clickhouse"], () => this.#fillDisk(how));
      default:
        throw new Error(`no such point: ${JSON.stringify(point satisfies never)}`);
    }
  }

  /** For faults that wait until the other aggregator has taken over: two of them at once would wait for each other. */
  async #withoutOne(use: () => Promise<boolean>): Promise<boolean> {
    return this.#locks.hold(["takeover"], use);
  }

  /** On one of the two; where that one sends nothing, on the other. */
  async #onAggregator({ random }: Context, use: (name: AggregatorName) => Promise<boolean>): Promise<boolean> {
    const [first, second] = random() < 0.5 ? AGGREGATORS : AGGREGATORS.toReversed();
    for (const name of [first, second])
      if (name !== undefined && (await this.#locks.hold([name], () => use(name)))) return true;
    return false;
  }

  async #kill(victim: Killed, { name }: Context): Promise<boolean> {
    const { servers, watch } = this.#target;
    const ends = await watch.ends();
    watch.note(name, ends);
    if (victim === "broker" || victim === "clickhouse" || victim === "postgres") {
      const server = victim === "broker" ? servers.kafka : servers[victim];
      server.kill();
      this.sigkills += 1;
      await restarted(server);
      return true;
    }
    await this.#killProcess(victim);
    await this.#untilReady([victim]);
    return true;
  }

  /** Patiently: how long it took is measured elsewhere, and on a busy machine a start may meet the next fault. */
  async #untilReady(names: readonly ProcessName[]): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#target.world.untilReady(names);
        return;
      } catch (error) {
        if (attempt === READY_ATTEMPTS_MAX) throw error;
      }
    }
  }

  /** A process that has just ended by itself is started by its supervisor, and killed then. */
  async #killProcess(victim: ProcessName): Promise<void> {
    const { [victim]: process } = this.#target.world.processes;
    await until(() => process.kill(), { timeoutMs: 60_000, what: `${victim} runs and can be killed` });
    this.sigkills += 1;
  }

  /** The aggregator dies while a request of its flush stands at the stage. */
  async #killInFlush(name: AggregatorName, at: Extract<Point, { kind: "flush" }>, how: Context): Promise<boolean> {
    const isHit = await this.#trap(name, { ...at, statement: "insert" }, async () => {
      this.#target.watch.note(how.name);
      await this.#killProcess(name);
      // Half a request ends with the connection of its sender; a whole one is ClickHouse's to finish.
      return at.stage === "half" ? "cut" : "go-on";
    });
    await this.#untilReady([name]);
    return isHit;
  }

  /** The aggregator dies, and its next life dies in a load. */
  async #killInOpen(name: AggregatorName, table: string, how: Context): Promise<boolean> {
    const { watch } = this.#target;
    const trap = this.#trap(name, { statement: "select", table, stage: "sent" }, async () => {
      await this.#killProcess(name);
      return "cut";
    });
    watch.note(how.name, await watch.ends());
    await this.#killProcess(name);
    const isHit = await trap;
    await this.#untilReady([name]);
    return isHit;
  }

  /** A meter comes while usage flows, and the aggregator dies while it counts what was there before. */
  async #killInBackfill(name: AggregatorName, step: BackfillStep, how: Context): Promise<boolean> {
    const { watch, lateMeters } = this.#target;
    const timeoutMs = BACKFILL_TRAP_TIMEOUT_MS;
    const die = async (): Promise<Verdict> => {
      watch.note(how.name);
      await this.#killProcess(name);
      return "cut";
    };
    const page = { statement: "select", table: "raw_events", holding: PAGE_STATEMENT } as const;
    const untilDead = {
      page: () => this.#trap(name, { ...page, stage: "sent", timeoutMs }, die),
      rollup: async () =>
        (await this.#trap(name, { ...page, stage: "answered", timeoutMs }, async () => "go-on")) &&
        this.#trap(name, { statement: "insert", table: "rollup", stage: "half" }, die),
      record: () => this.#trap(name, { statement: "insert", table: "backfills", stage: "before", timeoutMs }, die),
    }[step];
    const [isHit] = await Promise.all([untilDead(), lateMeters.add()]);
    await this.#untilReady([name]);
    return isHit;
  }

  /** Resolves when the request has passed on, or none came. */
  async #trap(
    name: AggregatorName,
    at: Omit<Trap, "act"> & { readonly timeoutMs?: number },
    act: () => Promise<Verdict>,
  ): Promise<boolean> {
    const { promise: done, resolve, reject } = Promise.withResolvers<void>();
    const trap = {
      ...at,
      act: async (): Promise<Verdict> => {
        try {
          const verdict = await act();
          resolve();
          return verdict;
        } catch (error) {
          reject(error);
          throw error;
        }
      },
    };
    if (!(await this.#target.proxies[name].set(trap, at.timeoutMs ?? TRAP_TIMEOUT_MS))) return false;
    await done;
    return true;
  }

  async #killAtCall({ call, isTwice }: Extract<Point, { kind: "call" }>, { name, random }: Context): Promise<boolean> {
    const { clickhouse } = this.#target.servers;
    const { watch } = this.#target;
    const k = 1 + Math.floor(random() * CALL_NUMBER_MAX[call]);
    const timeoutMs = CALL_TIMEOUT_MS;
    // Counters are per thread: where no thread came to its k-th call, the first one will do.
    const isHit =
      (await killAtCall(clickhouse, { call, k, timeoutMs: timeoutMs / 2 })) ||
      (await killAtCall(clickhouse, { call, k: 1, timeoutMs }));
    if (isHit) {
      watch.note(name);
      this.sigkills += 1;
    }
    if (isHit && isTwice) await this.#killInRecovery(call, random);
    await restarted(clickhouse);
    return isHit;
  }

  /** Dies once more: at a call of its start, or at a random moment of it where it makes no such call. */
  async #killInRecovery(call: SystemCall, random: () => number): Promise<void> {
    const { clickhouse } = this.#target.servers;
    const wrapper = dyingAt(call, 1 + Math.floor(random() * START_CALL_NUMBER_MAX[call]));
    let hasStarted = true;
    const starting = clickhouse.restart(wrapper).catch(() => {
      // It died on its way.
      hasStarted = false;
    });
    // time passes here: the moment of the second kill, where no call brings it.
    await pause((0.2 + random()) * RECOVERY_KILL_MAX_MS);
    clickhouse.kill();
    this.sigkills += 1;
    await starting;
    this.#count(`the second kill ${hasStarted ? "after" : "during"} the start`);
  }

  /** Stopped with an open insert until a successor has stored more, then let go on. */
  async #zombie(name: AggregatorName, stage: "half" | "sent", how: Context): Promise<boolean> {
    const { world, watch } = this.#target;
    return this.#trap(name, { statement: "insert", table: "rollup", stage }, async () => {
      watch.note(how.name);
      world.processes[name].suspend();
      try {
        await this.#takeover();
      } finally {
        world.processes[name].resume();
      }
      return "go-on";
    });
  }

  /** The session passes, and every partition with a backlog has moved since. */
  async #takeover(): Promise<void> {
    const { watch } = this.#target;
    const before = watch.progress();
    // time passes here: longer than a session of the group.
    await pause(TAKEOVER_MS);
    await until(() => watch.progress().every((next, partition) => next > (before[partition] ?? 0)), {
      timeoutMs: 600_000,
      what: "a successor stores more of every partition",
    });
  }

  /** One more aggregator, in a group of its own: it folds every partition beside their owners. */
  async #twin({ name }: Context): Promise<boolean> {
    const { world, watch } = this.#target;
    const { settings } = world.processes.aggregator1;
    const port = await freePort();
    const twin = new SupervisedProcess({
      ...settings,
      name: "twin",
      env: { ...settings.env, KAFKA_GROUP: `${world.topic}.twin-${randomUUID()}`, AGGREGATOR_PORT: String(port) },
      url: `http://127.0.0.1:${port}`,
      logPath: settings.logPath.replace("aggregator1", "twin"),
    });
    watch.note(name, await watch.ends());
    twin.start();
    try {
      await until(async () => (await fetch(`${twin.settings.url}/readyz`)).ok, {
        timeoutMs: 300_000,
        what: "the twin is ready",
      });
      // time passes here: both work on every partition.
      await pause(TWIN_MS);
    } finally {
      await twin.end();
      this.sigkills += 1;
    }
    return true;
  }

  async #proxyFault(
    name: AggregatorName,
    fault: Extract<Point, { kind: "proxy" }>["how"],
    { name: point, random }: Context,
  ): Promise<boolean> {
    const { watch, proxies } = this.#target;
    const table = ["raw_events", "identities", "rollup", "progress"][Math.floor(random() * 4)] ?? "rollup";
    const note = (verdict: Verdict) => async () => {
      watch.note(point);
      return verdict;
    };
    switch (fault) {
      case "cut":
        return this.#trap(name, { statement: "insert", table, stage: "sent" }, note("cut"));
      case "half-close":
        return this.#trap(name, { statement: "insert", table, stage: "half" }, note("half-close"));
      case "twice":
        return this.#trap(name, { statement: "insert", table, stage: "answered" }, note("twice"));
      case "hold": {
        const isHit = await this.#trap(name, { statement: "insert", table, stage: "before" }, async () => {
          watch.note(point);
          await this.#killProcess(name);
          await this.#takeover();
          return "go-on";
        });
        await this.#untilReady([name]);
        return isHit;
      }
      case "refuse":
        watch.note(point, await watch.ends());
        proxies[name].refuseInserts(REFUSE_MS);
        return this.#trap(name, { statement: "insert", table, stage: "answered" }, async () => "go-on");
      default:
        throw new Error(`no such fault: ${String(fault satisfies never)}`);
    }
  }

  /** With both members gone the group's committed offsets are lost, or say something wrong. */
  async #moveOffsets(how: "deleted" | "rewound" | "advanced", { name }: Context): Promise<boolean> {
    const { world, watch, offsets } = this.#target;
    watch.note(name, await watch.ends());
    // Asked to end, they leave the group at once.
    await Promise.all(AGGREGATORS.map((each) => world.processes[each].stop()));
    try {
      await offsets.move(how);
    } finally {
      for (const each of AGGREGATORS) world.processes[each].start();
    }
    await this.#untilReady(AGGREGATORS);
    return true;
  }

  /** A process starts anew with a wrong clock, and after a while with the right one. */
  #wrongClock(hours: 1 | -1, { name, random }: Context): Promise<boolean> {
    const { world, watch } = this.#target;
    const candidates: ProcessName[] = ["aggregator1", "aggregator2", "gateway1", "gateway2", "reporter", "console"];
    const victim = candidates[Math.floor(random() * candidates.length)] ?? "aggregator1";
    const shiftMs = hours * (HOUR_SHIFT_MS - CLOCK_MARGIN_MS);
    return this.#locks.hold([victim], async () => {
      const process = world.processes[victim];
      watch.note(name, await watch.ends());
      process.addedEnv = {
        NODE_OPTIONS: `--import ${SHIFTED_CLOCK}`,
        CHAOS_CLOCK_SHIFT_MS: String(shiftMs),
      };
      try {
        await this.#killProcess(victim);
        await this.#untilReady([victim]);
        // time passes here: it works with a wrong clock.
        await pause(TWIN_MS);
      } finally {
        process.addedEnv = {};
      }
      await this.#killProcess(victim);
      await this.#untilReady([victim]);
      return true;
    });
  }

  async #fillDisk({ name }: Context): Promise<boolean> {
    const { watch, proxies } = this.#target;
    const { disk, clickhouse } = this.#target.servers;
    if (disk === null) throw new Error("ClickHouse has no small disk here");
    watch.note(name, await watch.ends());
    const failures = (): number => AGGREGATORS.reduce((sum, each) => sum + proxies[each].failures, 0);
    const before = failures();
    let hasEnded = false;
    const ended = (async () => {
      await clickhouse.ended();
      hasEnded = true;
    })();
    await disk.fill();
    try {
      await until(() => hasEnded || failures() > before, {
        timeoutMs: TRAP_TIMEOUT_MS,
        what: "an insert meets the full disk",
      });
      // time passes here: nothing can be stored.
      await pause(DISK_FULL_MS);
    } finally {
      disk.free();
    }
    // chDB ends when the disk took not all of its bytes, at latest when its watch looks again. Somebody starts it then.
    await Promise.race([ended, pause(LOST_WRITES_SEEN_MS)]);
    if (hasEnded) await restarted(clickhouse);
    return true;
  }
}

/** On a busy machine a start may take longer than the server's own limit. */
async function restarted(server: LocalServer): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await server.restart();
      return;
    } catch (error) {
      if (attempt === READY_ATTEMPTS_MAX) throw error;
    }
  }
}

interface Context {
  readonly name: string;
  readonly random: () => number;
}
