import type { Answer } from "./answer.ts";
import type { EmulatorState, ModeState } from "./state.ts";
import type { Parameters } from "./parameters.ts";

/** One request as an operation sees it: authenticated and held to the documented parameters. */
export interface Call {
  readonly state: EmulatorState;
  readonly data: ModeState;
  /** Epoch milliseconds: when the request was received. */
  readonly at: number;
  /** The `{id}` of the path; empty without one. */
  readonly id: string;
  readonly parameters: Parameters;
}

/** What a handler answers; `eventPosition` where the answer can be built again from a counted meter event. */
export interface Result extends Answer {
  readonly eventPosition?: number;
}

/** One implemented operation. */
export interface Handler {
  /** Writes are journalled and must follow from state and call alone: no clock, no chance. Reads change nothing. */
  readonly effect: "read" | "write";
  /** The documented parameters that have an effect here; the other documented ones answer 501. `expand` always has. */
  readonly supported: readonly string[];
  /** Documented parameters below a supported one that answer 501 too, in brackets: `invoice_settings[footer]`. */
  readonly unsupported?: readonly string[];
  run(call: Call, settings: ReadSettings): Result;
}

/** Settings that change how state is shown, never the state. */
export interface ReadSettings {
  /** A meter event is visible in summaries this long after its receipt. */
  readonly summaryLagMs: number;
}

export type Handlers = Readonly<Record<string, Handler>>;

/** Unix seconds of an instant in milliseconds. */
export function seconds(atMs: number): number {
  return Math.floor(atMs / 1_000);
}

/** Stripe's `livemode` of these data. */
export function livemode(data: ModeState): boolean {
  return data.mode === "live";
}
