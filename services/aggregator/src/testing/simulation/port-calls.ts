import type { Dice } from "@tallyhouse/testkit";
import { TallyhouseError } from "@tallyhouse/domain";

/** What a call does when it is done; `half` is what a torn write leaves. Reads have no half. */
export interface Effects {
  readonly whole: () => Promise<unknown>;
  readonly half?: () => Promise<unknown>;
}

/** A call that a process made and has no answer to. */
interface PendingCall {
  readonly process: string;
  readonly name: string;
  readonly effects: Effects;
  readonly answer: (outcome: { readonly value: unknown } | { readonly error: Error }) => void;
  /** Set once the effect is done and only the answer is on its way. */
  outcome: { readonly value: unknown } | { readonly error: Error } | null;
}

/** A write that lands after its answer was given up, perhaps after its writer is gone. */
interface LateWrite {
  readonly name: string;
  readonly effect: () => Promise<unknown>;
}

/** How likely a call goes wrong, in [0, 1]. */
export interface Weather {
  readonly failure: number;
  /** A write that went wrong, or was made twice, lands later. */
  readonly late: number;
}

/** Where around a call's effect its process dies. */
export type DeathMoment = "before" | "half" | "after";

/** The death of a process at its n-th call. */
export interface Death {
  readonly at: number;
  readonly moment: DeathMoment;
}

export const CALM: Weather = { failure: 0, late: 0 };

/** Every call of every port of every process: none is done before the schedule says so, and how is the schedule's choice too. */
export class PortCalls {
  weather: Weather = CALM;
  readonly #dice: Dice;
  readonly #trace: (line: string) => void;
  readonly #count: (fault: string) => void;
  #pending: PendingCall[] = [];
  #armed: (Death & { readonly process: string; seen: number }) | null = null;
  #hit: string | null = null;
  readonly #late: LateWrite[] = [];

  constructor(dice: Dice, notes: { trace: (line: string) => void; count: (fault: string) => void }) {
    this.#dice = dice;
    this.#trace = notes.trace;
    this.#count = notes.count;
  }

  /** Makes a call; the promise settles when the schedule answers it, and never when the process dies before. */
  issue<Result>(process: string, name: string, effects: Effects): Promise<Result> {
    return new Promise((resolve, reject) => {
      const answer: PendingCall["answer"] = (outcome) => {
        if ("error" in outcome) reject(outcome.error);
        else resolve(outcome.value as Result);
      };
      this.#pending.push({ process, name, effects, answer, outcome: null });
    });
  }

  /** This process dies at that call. */
  arm(process: string, death: Death): void {
    this.#armed = { ...death, process, seen: 0 };
  }

  disarm(): void {
    this.#armed = null;
  }

  /** The call at which the armed process has just died, told once. */
  takeHit(): string | null {
    const hit = this.#hit;
    this.#hit = null;
    return hit;
  }

  /** Calls of these processes that wait for the schedule. */
  waiting(processes: ReadonlySet<string>): PendingCall[] {
    return this.#pending.filter(({ process }) => processes.has(process));
  }

  get lateCount(): number {
    return this.#late.length;
  }

  /** One step of one call: its effect, its answer, or both. */
  async proceed(call: PendingCall): Promise<void> {
    if (call.outcome === null && (await this.#diesAt(call))) return undefined;
    if (call.outcome === null) call.outcome = await this.#perform(call);
    else return this.#answer(call);
    // Between effect and answer anything may happen: other calls, a crash, a takeover.
    if (this.#dice.chance(0.7)) this.#answer(call);
    return undefined;
  }

  /** Leaves an effect to some later step. */
  later(name: string, effect: () => Promise<unknown>): void {
    this.#late.push({ name, effect });
  }

  /** Does one of the late writes. */
  async landLate(): Promise<void> {
    const [write] = this.#late.splice(this.#dice.below(this.#late.length), 1);
    if (write === undefined) return;
    this.#trace(`late ${write.name}`);
    this.#count("a write lands late");
    await write.effect();
  }

  /** The process is dead: what it sent may land whole, in part, later or never; no answer reaches it. */
  async abandon(process: string): Promise<void> {
    const left = this.#pending.filter((call) => call.process === process);
    this.#pending = this.#pending.filter((call) => call.process !== process);
    for (const { name, effects, outcome } of left) {
      if (outcome !== null || effects.half === undefined) continue;
      const fate = this.#dice.pick(["never", "whole", "half", "later", "half later"] as const);
      this.#trace(`${process} died with ${name}: ${fate}`);
      this.#count(`${kindOf(name)} of the dead lands ${fate}`);
      if (fate === "whole") await effects.whole();
      if (fate === "half") await effects.half();
      if (fate === "later") this.later(name, effects.whole);
      if (fate === "half later") this.later(name, effects.half);
    }
  }

  /** Whether this is the call of the armed death; then its effect is what the moment says, and no answer ever comes. */
  async #diesAt({ process, name, effects }: PendingCall): Promise<boolean> {
    const armed = this.#armed;
    if (armed === null || armed.process !== process) return false;
    armed.seen += 1;
    if (armed.seen !== armed.at) return false;
    if (armed.moment === "half") await effects.half?.();
    if (armed.moment === "after") await outcomeOf(effects.whole());
    this.#armed = null;
    this.#hit = kindOf(name);
    return true;
  }

  #answer(call: PendingCall): void {
    this.#pending.splice(this.#pending.indexOf(call), 1);
    if (call.outcome !== null) call.answer(call.outcome);
  }

  async #perform(call: PendingCall): Promise<NonNullable<PendingCall["outcome"]>> {
    const { process, name, effects } = call;
    if (!this.#dice.chance(this.weather.failure)) {
      if (effects.half !== undefined && this.#dice.chance(this.weather.late)) {
        this.#count(`${kindOf(name)} is sent twice`);
        this.later(name, effects.whole);
      }
      this.#trace(`${process} ${name}`);
      return outcomeOf(effects.whole());
    }
    const fates = effects.half === undefined ? (["before", "after"] as const) : (["before", "half", "after"] as const);
    const fate = this.#dice.pick<string>(fates);
    this.#trace(`${process} ${name}: fails ${fate}`);
    this.#count(`${kindOf(name)} fails ${fate} its effect`);
    if (fate === "after") await outcomeOf(effects.whole());
    if (fate === "half") await effects.half?.();
    if (effects.half !== undefined && this.#dice.chance(this.weather.late)) this.later(name, effects.whole);
    const message = `${name} failed ${fate} its effect, or so it seems`;
    return { error: new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message }) };
  }
}

/** The call without its arguments. */
function kindOf(name: string): string {
  return name.replace(/ \d.*/, "");
}

/** A read may fail by itself: what visits the rows may throw. */
async function outcomeOf(effect: Promise<unknown>): Promise<{ readonly value: unknown } | { readonly error: Error }> {
  try {
    return { value: await effect };
  } catch (error) {
    return { error: error as Error };
  }
}
