import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { customerHandlers } from "./customers.ts";
import { eventSummaryHandlers } from "./event-summaries.ts";
import {
  type Command,
  foldConfigure,
  foldRecord,
  foldRequest,
  type JournalRecord,
  type RequestCommand,
} from "./fold.ts";
import { lockFolder } from "./folder-lock.ts";
import type { Handlers, Result } from "./handler.ts";
import { type Journal, memoryJournal, openFileJournal } from "./journal.ts";
import { meterEventHandlers } from "./meter-events.ts";
import { meterHandlers } from "./meters.ts";
import { readSnapshot, writeSnapshot } from "./snapshot.ts";
import { type EmulatorState, emptyState, type IdentifierMemory } from "./state.ts";

/** Every implemented operation by its key. */
export const handlers: Handlers = {
  ...customerHandlers,
  ...meterHandlers,
  ...meterEventHandlers,
  ...eventSummaryHandlers,
};

/** A journal below this size is replayed at every start rather than folded into a snapshot: about a second. */
const JOURNAL_BYTES_MIN = 32 << 20;

/** State and journal together: the only writer of both. */
export interface Engine {
  readonly state: Readonly<EmulatorState>;
  /**
   * Executes one write. The result must not be answered before {@link durable}: a crash in between would forget what
   * a client was told.
   */
  execute(command: RequestCommand): Result;
  /** Resolves when everything executed so far survives a crash. @throws when the journal failed; restart then. */
  durable(): Promise<void>;
  close(): Promise<void>;
}

export interface EngineOptions {
  /** Absent: the state lives in memory only. */
  readonly dataFolder?: string | undefined;
  /** Absent: the folder's own, for a new folder a random one. */
  readonly seed?: string | undefined;
  readonly identifierMemory: IdentifierMemory;
  readonly journalBytesMin?: number | undefined;
}

/**
 * Restores the state from the folder (snapshot, then journal) and opens it for writing.
 * @throws when another process uses the folder, the folder has another seed, or its files are damaged.
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const { dataFolder } = options;
  if (dataFolder === undefined)
    return engine(emptyState(), { journal: memoryJournal(), release: () => Promise.resolve(), options });
  mkdirSync(dataFolder, { recursive: true });
  const release = await lockFolder(dataFolder);
  let journal: Journal | undefined;
  try {
    const { state, bytes } = readSnapshot(dataFolder);
    let snapshotBytes = bytes;
    journal = await openFileJournal({
      folder: dataFolder,
      onRecord: (record) => foldRecord(state, handlers, record as JournalRecord),
      compact(journalBytes) {
        // As large as the last snapshot, so the bytes written for snapshots stay proportional to those of the journal.
        if (journalBytes < Math.max(options.journalBytesMin ?? JOURNAL_BYTES_MIN, snapshotBytes)) return false;
        // The snapshot may hold commands that wait to be journalled; replay skips them by their number.
        snapshotBytes = writeSnapshot(dataFolder, state);
        return true;
      },
    });
    return await engine(state, { journal, release, options });
  } catch (error) {
    await journal?.close();
    await release();
    throw error;
  }
}

interface EngineParts {
  readonly journal: Journal;
  readonly options: EngineOptions;
  readonly release: () => Promise<void>;
}

async function engine(state: EmulatorState, { journal, release, options }: EngineParts): Promise<Engine> {
  const append = (command: Command, status?: number): void =>
    journal.append({ ...command, seq: state.seq, ...(status === undefined ? {} : { status }) } satisfies JournalRecord);
  const seed = options.seed ?? (state.seed === "" ? randomUUID() : state.seed);
  if (state.seed !== "" && state.seed !== seed) {
    throw new Error(`the data folder was started with seed ${state.seed}, not ${seed}`);
  }
  if (state.seed !== seed || state.identifierMemory !== options.identifierMemory) {
    const command = { kind: "configure", seed, identifierMemory: options.identifierMemory } as const;
    foldConfigure(state, command);
    append(command);
    await journal.durable();
  }
  let failure: Error | undefined;
  return {
    state,
    execute(command) {
      if (failure !== undefined) throw failure;
      try {
        const result = foldRequest(state, handlers, command);
        append(command, result.status);
        return result;
      } catch (error) {
        // Half a change may be in memory and is not in the journal: only a restart gives a true state again.
        failure = new Error("the emulator stopped after an internal error; restart it", { cause: error });
        throw failure;
      }
    },
    durable: () => (failure === undefined ? journal.durable() : Promise.reject(failure)),
    async close() {
      await journal.close();
      await release();
    },
  };
}
