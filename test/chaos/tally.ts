/** What a run has to say at its end, over all its worlds. */
import { cpus } from "node:os";
import type { ProcessName } from "../integration/world.ts";
import type { SupervisedProcess } from "../support/supervised-process.ts";
import { quantile } from "../load/options.ts";
import type { Faults } from "./faults.ts";
import type { ChaosLoad, LoadFigures } from "./load.ts";
import type { ChaosOptions } from "./options.ts";
import { nameOf, type PlannedFault } from "./plan.ts";
import type { Proof } from "./proof.ts";
import type { Recovery, RecoveryWatch } from "./recovery.ts";

/** Adds worlds up. */
export interface Tally {
  readonly differences: string[];
  addWorld(world: {
    faults: Faults;
    watch: RecoveryWatch;
    load: ChaosLoad;
    proof: Proof;
    processes: Readonly<Record<ProcessName, SupervisedProcess>>;
  }): void;
  /** Called for each fault as it begins: a run may end before its plan does. */
  begin(fault: PlannedFault): void;
  /** Points of the faults that began, without a hit. */
  emptyPoints(): string[];
  readonly state: TallyState;
}

interface TallyState {
  readonly options: ChaosOptions;
  readonly startedAt: number;
  readonly hits: Map<string, number>;
  readonly begun: string[];
  readonly misses: string[];
  readonly recoveries: Recovery[];
  readonly fates: Record<string, number>;
  readonly ends: Record<string, number>;
  readonly load: Record<keyof LoadFigures, number>;
  worlds: number;
  totals: number;
  meterEvents: number;
  accepted: number;
  corrections: number;
  sigkills: number;
}

export function newTally(options: ChaosOptions): Tally {
  const state: TallyState = {
    options,
    startedAt: performance.now(),
    hits: new Map(),
    begun: [],
    misses: [],
    recoveries: [],
    fates: {},
    ends: {},
    load: { sent: 0, acknowledged: 0, duplicates: 0, conflicts: 0, misplaced: 0, resent: 0, unknownBatches: 0 },
    worlds: 0,
    totals: 0,
    meterEvents: 0,
    accepted: 0,
    corrections: 0,
    sigkills: 0,
  };
  const differences: string[] = [];
  return {
    state,
    differences,
    addWorld({ faults, watch, load, proof, processes }) {
      state.worlds += 1;
      state.totals += proof.totals;
      state.meterEvents += proof.meterEvents;
      state.accepted += proof.accepted;
      state.corrections += proof.corrections;
      for (const [name, count] of faults.hits) state.hits.set(name, (state.hits.get(name) ?? 0) + count);
      state.sigkills += faults.sigkills;
      state.misses.push(...faults.misses);
      state.recoveries.push(...watch.recoveries);
      differences.push(...proof.differences);
      addCounts(state.fates, proof.fates);
      addCounts(state.load, { ...load.figures });
      const ends = Object.entries(processes).map(([name, { unexpectedEnds }]) => [name, unexpectedEnds] as const);
      addCounts(state.ends, Object.fromEntries(ends));
    },
    begin: ({ point }) => void state.begun.push(nameOf(point)),
    emptyPoints: () => [...new Set(state.begun)].filter((name) => !state.hits.has(name)).sort(),
  };
}

function addCounts(sum: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) sum[name] = (sum[name] ?? 0) + count;
}

/** Tables for people, then one JSON object with every figure. */
export function printTally(tally: Tally, print: (line: string) => void): void {
  const { state, differences } = tally;
  const { options, hits, recoveries } = state;
  const byPoint = [...new Set([...state.begun, ...hits.keys()])].sort();
  print("hits  recovery of a partition, seconds: p50   p95   max   kill point");
  for (const name of byPoint) {
    const { p50, p95, max } = quantilesOf(recoveries.filter((recovery) => recovery.name === name));
    print(`${String(hits.get(name) ?? 0).padStart(4)}${text(p50).padStart(40)}${text(p95)}${text(max)}   ${name}`);
  }
  const isBroker = ({ name }: Recovery): boolean => name === "kill broker";
  const figures = {
    chaos: "kills",
    seed: options.seed,
    fromKill: options.fromKill,
    faults: state.begun.length,
    sigkills: state.sigkills,
    brokerKills: hits.get("kill broker") ?? 0,
    worlds: state.worlds,
    minutes: Number(((performance.now() - state.startedAt) / 60_000).toFixed(1)),
    ...state.load,
    accepted: state.accepted,
    corrections: state.corrections,
    fates: state.fates,
    totalsCompared: state.totals,
    meterEvents: state.meterEvents,
    differences: differences.length,
    recoverySeconds: quantilesOf(recoveries.filter((recovery) => !isBroker(recovery))),
    brokerRecoverySeconds: quantilesOf(recoveries.filter(isBroker)),
    otherEnds: state.ends,
    misses: state.misses,
    emptyPoints: tally.emptyPoints(),
    cores: cpus().length,
    hits: Object.fromEntries([...hits].sort(([a], [b]) => a.localeCompare(b))),
  };
  print(`differences to the oracle: ${differences.length}`);
  for (const difference of differences) print(`  ${difference}`);
  print(JSON.stringify(figures));
}

function quantilesOf(recoveries: readonly Recovery[]): { p50: number; p95: number; max: number; count: number } {
  const sorted = recoveries.map(({ seconds }) => seconds).toSorted((a, b) => a - b);
  const at = (share: number): number => Number(quantile(sorted, share).toFixed(1));
  return { p50: at(0.5), p95: at(0.95), max: Number((sorted.at(-1) ?? 0).toFixed(1)), count: sorted.length };
}

function text(seconds: number): string {
  return seconds.toFixed(1).padStart(6);
}
