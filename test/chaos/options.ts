import { parseArgs } from "node:util";

/** What a chaos run does. Equal seeds plan equal faults; when they fall depends on the machine. */
export interface ChaosOptions {
  readonly seed: number;
  /** Faults of the whole plan; the first one of this run is `fromKill`. */
  readonly kills: number;
  readonly fromKill: number;
  /** With it the plan is that many kills of each process and server, and nothing else. */
  readonly each: number;
  /** Ends earlier when the time is up; 0 is no bound. */
  readonly minutes: number;
  /** Usage events of the whole plan, spread evenly over its faults; the load waits when it is ahead. 0 is 10,000 a fault. */
  readonly events: number;
  readonly ratePerSecond: number;
  /** Mean time between two faults. They overlap. */
  readonly gapMs: number;
  /** Faults in one world; then everything is proven, and a fresh world goes on. */
  readonly worldKills: number;
  /** Only points whose name holds one of these texts, with commas between them. */
  readonly only: string;
}

const NAMES = {
  seed: 1,
  kills: 20,
  "from-kill": 0,
  each: 0,
  minutes: 0,
  events: 0,
  rate: 2_500,
  "gap-ms": 4_000,
  "world-kills": 200,
} as const;

/** Reads the command line. @throws {Error} naming the option that is wrong. */
export function chaosOptions(args: readonly string[]): ChaosOptions {
  const numbers = Object.fromEntries(
    Object.entries(NAMES).map(([name, value]) => [name, { type: "string" as const, default: String(value) }]),
  );
  const { values } = parseArgs({
    args: [...args],
    options: { ...numbers, only: { type: "string", default: "" } },
  });
  const whole = (name: keyof typeof NAMES): number => {
    const text = values[name as keyof typeof values];
    if (!/^\d{1,10}$/.test(text)) throw new Error(`--${name} takes a whole number, not ${text}`);
    return Number(text);
  };
  return {
    seed: whole("seed"),
    kills: whole("kills"),
    fromKill: whole("from-kill"),
    each: whole("each"),
    minutes: whole("minutes"),
    events: whole("events"),
    ratePerSecond: whole("rate"),
    gapMs: whole("gap-ms"),
    worldKills: whole("world-kills"),
    only: values.only,
  };
}
