/**
 * Which fault comes when: a function of the seed and the fault's number alone, so that a run that was stopped can be continued
 * (`--from-kill N`). Faults are dealt like cards: every point comes once before any comes again, but for its copies.
 */
import { mixed } from "./usage-source.ts";

/** Every process and server that is killed at a random moment. */
export const KILLED = [
  "gateway1",
  "gateway2",
  "aggregator1",
  "aggregator2",
  "reporter",
  "console",
  "emulator",
  "broker",
  "clickhouse",
  "postgres",
] as const;
export type Killed = (typeof KILLED)[number];

/**
 * Filesystem calls of the ClickHouse process at which it is killed: those that change something and that it makes under load
 * (`strace -c` over inserts and merges). It makes no fsync, pwrite64 or unlinkat at all, and renameat2 only for a new table.
 */
export const SYSTEM_CALLS = ["rename", "fdatasync", "write", "openat", "mkdir", "unlink"] as const;
export type SystemCall = (typeof SYSTEM_CALLS)[number];

/** Where an aggregator stands in a request of its own to ClickHouse. */
export const STAGES = ["before", "half", "sent", "answered"] as const;
export type Stage = (typeof STAGES)[number];

/** Tables of a flush; `progress` goes last. */
export const FLUSH_TABLES = ["raw_events", "identities", "rollup", "progress"] as const;
/** What an opening aggregator reads. */
export const OPEN_TABLES = ["progress", "identities", "control_records", "rollup", "raw_events"] as const;

/**
 * Where an aggregator stands in a backfill: it reads a page of what was there before the meter, it writes rollup rows after such
 * a page (rows of the backfill, or the live fold's beside it), or it has written all and not said so.
 */
export const BACKFILL_STEPS = ["page", "rollup", "record"] as const;
export type BackfillStep = (typeof BACKFILL_STEPS)[number];

/** A kill point. */
export type Point =
  | { readonly kind: "kill"; readonly victim: Killed }
  | { readonly kind: "flush"; readonly table: (typeof FLUSH_TABLES)[number]; readonly stage: Stage }
  | { readonly kind: "open"; readonly table: (typeof OPEN_TABLES)[number] }
  | { readonly kind: "backfill"; readonly step: BackfillStep }
  | { readonly kind: "call"; readonly call: SystemCall; readonly isTwice: boolean }
  | { readonly kind: "zombie"; readonly stage: "half" | "sent" }
  | { readonly kind: "twin" }
  | { readonly kind: "proxy"; readonly how: "cut" | "half-close" | "hold" | "twice" | "refuse" }
  | { readonly kind: "offsets"; readonly how: "deleted" | "rewound" | "advanced" }
  | { readonly kind: "clock"; readonly hours: 1 | -1 }
  | { readonly kind: "disk-full" };

/** One fault of a run. */
export interface PlannedFault {
  readonly number: number;
  readonly point: Point;
  /** How long after the fault before it, as a share of twice the mean gap. */
  readonly gapShare: number;
  /** Seeds every further choice of this fault. */
  readonly seed: number;
}

/** The name that reports count by. */
export function nameOf(point: Point): string {
  switch (point.kind) {
    case "kill":
      return `kill ${point.victim}`;
    case "flush":
      return `aggregator killed, ${point.table} ${STAGE_NAMES[point.stage]}`;
    case "open":
      return `aggregator killed in its load of ${point.table}`;
    case "backfill":
      return BACKFILL_NAMES[point.step];
    case "call":
      return `clickhouse killed at ${point.call}${point.isTwice ? ", again in recovery" : ""}`;
    case "zombie":
      return `zombie with an insert ${STAGE_NAMES[point.stage]}`;
    case "twin":
      return "two aggregators on every partition";
    case "proxy":
      return PROXY_NAMES[point.how];
    case "offsets":
      return `group offsets ${point.how}`;
    case "clock":
      return `clock ${point.hours > 0 ? "+" : "-"} 1 h`;
    case "disk-full":
      return "disk full";
    default:
      throw new Error(`no such point: ${JSON.stringify(point satisfies never)}`);
  }
}

const STAGE_NAMES: Readonly<Record<Stage, string>> = {
  before: "unsent",
  half: "half sent",
  sent: "unacknowledged",
  answered: "acknowledged",
};
const BACKFILL_NAMES: Readonly<Record<BackfillStep, string>> = {
  page: "aggregator killed in a backfill, reading a page",
  rollup: "aggregator killed in a backfill, rollup half sent",
  record: "aggregator killed in a backfill, all written and unrecorded",
};
const PROXY_NAMES = {
  cut: "proxy cuts between request and answer",
  "half-close": "proxy half-closes mid-body",
  hold: "proxy holds an insert past a takeover",
  twice: "proxy sends an insert twice",
  refuse: "store refuses (too many parts)",
} as const;

/** Every point; one that stands twice is dealt twice as often. */
export function allPoints(): Point[] {
  return [
    ...KILLED.map((victim) => ({ kind: "kill", victim }) as const),
    ...KILLED.filter((victim) => victim !== "broker").map((victim) => ({ kind: "kill", victim }) as const),
    ...FLUSH_TABLES.flatMap((table) => STAGES.map((stage) => ({ kind: "flush", table, stage }) as const)),
    ...OPEN_TABLES.map((table) => ({ kind: "open", table }) as const),
    ...SYSTEM_CALLS.flatMap((call) => [true, false].map((isTwice) => ({ kind: "call", call, isTwice }) as const)),
    { kind: "zombie", stage: "half" },
    { kind: "zombie", stage: "sent" },
    { kind: "twin" },
    ...(["cut", "half-close", "hold", "twice", "refuse"] as const).map((how) => ({ kind: "proxy", how }) as const),
    ...(["deleted", "rewound", "advanced"] as const).map((how) => ({ kind: "offsets", how }) as const),
    { kind: "clock", hours: 1 },
    { kind: "clock", hours: -1 },
    { kind: "disk-full" },
    ...BACKFILL_STEPS.map((step) => ({ kind: "backfill", step }) as const),
  ];
}

/** What a short run must hold: each process and server once, and the kinds that find most. Dealt before all else. */
function firstPoints(): Point[] {
  return [
    ...KILLED.map((victim) => ({ kind: "kill", victim }) as const),
    { kind: "call", call: "rename", isTwice: true },
    { kind: "call", call: "fdatasync", isTwice: false },
    { kind: "call", call: "openat", isTwice: false },
    { kind: "zombie", stage: "half" },
    { kind: "proxy", how: "cut" },
    { kind: "proxy", how: "twice" },
    { kind: "proxy", how: "hold" },
    { kind: "twin" },
    { kind: "flush", table: "progress", stage: "before" },
    { kind: "flush", table: "rollup", stage: "sent" },
  ];
}

/** The faults [0, kills) of a seed. */
export function planFaults(input: { seed: number; kills: number; each: number; only: string }): PlannedFault[] {
  const { seed, each, only } = input;
  const isWanted = (point: Point): boolean => only.split(",").some((part) => nameOf(point).includes(part));
  const rounds = KILLED.map((victim) => ({ kind: "kill", victim }) as const).filter(isWanted);
  const deck = each > 0 ? rounds : allPoints().filter(isWanted);
  if (deck.length === 0) throw new Error(`no point is called ${only}`);
  const kills = each > 0 ? each * rounds.length : input.kills;
  const first = each > 0 ? [] : firstPoints().filter(isWanted);
  const points = shuffled(first, seed);
  const dealt = new Set(first.map(nameOf));
  const rest = deck.filter((point) => !dealt.delete(nameOf(point)));
  points.push(...shuffled(rest, seed + 1));
  for (let round = 2; points.length < kills; round += 1) points.push(...shuffled(deck, seed + round));
  return points.slice(0, kills).map((point, number) => ({
    number,
    point,
    gapShare: mixed(seed, 1_000_000 + number) / 2 ** 32,
    seed: mixed(seed, 2_000_000 + number),
  }));
}

function shuffled<Item>(items: readonly Item[], seed: number): Item[] {
  return items
    .map((item, index) => ({ item, order: mixed(seed, 3_000_000 + index) }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
