import { assert } from "./assert.ts";
import type { Handlers, Result } from "./handler.ts";
import type { Parameters } from "./parameters.ts";
import { type EmulatorState, type IdentifierMemory, type Mode, MODES } from "./state.ts";

/** Sets what the fold depends on. The first command of every journal, and again when a restart changes a setting. */
export interface ConfigureCommand {
  readonly kind: "configure";
  readonly seed: string;
  readonly identifierMemory: IdentifierMemory;
}

/** One executed write. */
export interface RequestCommand {
  readonly kind: "request";
  /** Epoch milliseconds of receipt: the only time the handler sees. */
  readonly at: number;
  readonly mode: Mode;
  /** Key of the operation, e.g. `POST /v1/customers/{id}`. */
  readonly operation: string;
  readonly id: string;
  readonly parameters: Parameters;
  /** Absent when the request had no key. */
  readonly idempotency?: { readonly key: string; readonly fingerprint: string };
}

export type Command = ConfigureCommand | RequestCommand;

/** A command as the journal holds it: numbered, and for a request with the status it was answered with. */
export type JournalRecord = Command & { readonly seq: number; readonly status?: number };

/** Executes a request against the state and remembers its result under its key. The same for first run and replay. */
export function foldRequest(state: EmulatorState, handlers: Handlers, command: RequestCommand): Result {
  const handler = handlers[command.operation];
  assert(handler?.effect === "write", `${command.operation} is no implemented write`);
  const { at, id, parameters, idempotency } = command;
  const data = state.modes[command.mode];
  const result = handler.run({ state, data, at, id, parameters }, { summaryLagMs: 0 });
  state.seq += 1;
  if (idempotency !== undefined) {
    const { status, body, eventPosition } = result;
    data.idempotency.put({ ...idempotency, at, result: eventPosition ?? { status, body } });
  }
  return result;
}

/** Takes over settings. The seed changes only once, from none: ids given out before would not follow from another. */
export function foldConfigure(state: EmulatorState, command: ConfigureCommand): void {
  assert(state.seed === "" || state.seed === command.seed, "the seed of a journal never changes");
  state.seed = command.seed;
  state.identifierMemory = command.identifierMemory;
  state.seq += 1;
}

/**
 * Folds one journal record. Records that a snapshot holds already are skipped; the others must follow without a gap
 * and give the status they gave the first time.
 */
export function foldRecord(state: EmulatorState, handlers: Handlers, record: JournalRecord): void {
  if (record.seq <= state.seq) return;
  assert(record.seq === state.seq + 1, `the journal goes from command ${state.seq} to ${record.seq}`);
  if (record.kind === "configure") {
    foldConfigure(state, record);
    return;
  }
  assert(MODES.includes(record.mode), `the journal has a command for mode ${record.mode}`);
  const { status } = foldRequest(state, handlers, record);
  assert(status === record.status, `command ${record.seq} gave ${record.status}, on replay ${status}`);
}
