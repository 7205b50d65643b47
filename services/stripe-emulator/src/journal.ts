import { closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { encodeRecord, readRecords } from "./record-file.ts";

/** Where commands become durable, in order. */
export interface Journal {
  /** Takes one command. It is durable once a {@link durable} called afterwards has resolved. */
  append(record: unknown): void;
  /**
   * Resolves when everything appended before is on disk.
   * @throws the write's error; what was appended may or may not be on disk, and nothing more can be appended.
   */
  durable(): Promise<void>;
  /** Writes what is waiting, then releases the file. */
  close(): Promise<void>;
}

/**
 * Bytes written between two syncs. An unsynced batch is never larger, so damage farther from the file's end than this
 * cannot come from a crash.
 */
export const BATCH_BYTES_MAX = 1 << 20;

/** Keeps nothing. Answers wait one turn of the event loop, so that requests of one turn overlap as they do on disk. */
export function memoryJournal(): Journal {
  return {
    append() {},
    durable: () => new Promise((resolve) => setImmediate(resolve)),
    close: () => Promise.resolve(),
  };
}

interface Waiter {
  /** Number of the last record that must be on disk. */
  readonly upTo: number;
  resolve(): void;
  reject(error: Error): void;
}

export interface FileJournalOptions {
  readonly folder: string;
  /** Called for every record on disk, in order, before {@link openFileJournal} resolves. */
  readonly onRecord: (record: unknown) => void;
  /** Called between two writes with the file's bytes; `true` empties the file, so its content must be stored elsewhere. */
  readonly compact: (fileBytes: number) => boolean;
}

/**
 * Opens `journal.ndjson` in the folder: delivers its records, cuts a torn tail.
 *
 * Group commit: while one batch is written and synced, later records gather and share the next sync.
 * @throws when damage lies farther from the end than one batch: acknowledged commands are lost, nothing is cut.
 */
export async function openFileJournal(options: FileJournalOptions): Promise<Journal> {
  const { folder, onRecord, compact } = options;
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "journal.ndjson");
  const { validBytes, fileBytes } = readRecords(path, onRecord);
  if (fileBytes - validBytes > BATCH_BYTES_MAX) {
    throw new Error(`${path} is damaged at byte ${validBytes}, which no crash explains; restore it from a copy`);
  }
  const file = await open(path, "a");
  if (fileBytes > validBytes) await file.truncate(validBytes);
  await file.sync();
  syncFolder(folder); // else a power loss could forget the new file's name, and with it every command
  return new FileJournal(file, { fileBytes: validBytes, compact });
}

/** Makes created and renamed files of a folder survive a power loss. */
export function syncFolder(folder: string): void {
  const handle = openSync(folder, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

class FileJournal implements Journal {
  readonly #file: FileHandle;
  readonly #compact: (fileBytes: number) => boolean;
  #fileBytes: number;
  /** Waiting to be written; bounded by the requests in flight, each of which appends at most one. */
  #lines: string[] = [];
  #appended = 0;
  #synced = 0;
  #waiters: Waiter[] = [];
  #failure: Error | undefined;
  #writing: Promise<void> | undefined;

  constructor(file: FileHandle, options: { fileBytes: number; compact: (fileBytes: number) => boolean }) {
    this.#file = file;
    this.#fileBytes = options.fileBytes;
    this.#compact = options.compact;
  }

  append(record: unknown): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#lines.push(encodeRecord(record));
    this.#appended += 1;
    this.#writing ??= this.#write();
  }

  durable(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#synced === this.#appended) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ upTo: this.#appended, resolve, reject }));
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }

  async #write(): Promise<void> {
    // One turn later: every request of this turn joins the first batch.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      while (this.#lines.length > 0) {
        const { batch, records } = this.#takeBatch();
        await this.#file.appendFile(batch);
        await this.#file.datasync();
        this.#fileBytes += batch.length;
        this.#synced += records;
        this.#wake();
        if (this.#compact(this.#fileBytes)) {
          await this.#file.truncate(0);
          await this.#file.datasync();
          this.#fileBytes = 0;
        }
      }
    } catch (error) {
      // The state is ahead of the disk from here on: nothing may be answered any more.
      this.#failure = new Error("the journal cannot be written", { cause: error });
      for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#failure);
    }
    this.#writing = undefined;
  }

  #takeBatch(): { batch: Buffer; records: number } {
    let bytes = 0;
    let records = 0;
    for (const line of this.#lines) {
      const lineBytes = Buffer.byteLength(line);
      if (records > 0 && bytes + lineBytes > BATCH_BYTES_MAX) break;
      bytes += lineBytes;
      records += 1;
    }
    const batch = Buffer.from(this.#lines.slice(0, records).join(""));
    this.#lines = this.#lines.slice(records);
    return { batch, records };
  }

  #wake(): void {
    const ready = this.#waiters.findIndex((waiter) => waiter.upTo > this.#synced);
    for (const waiter of this.#waiters.splice(0, ready === -1 ? this.#waiters.length : ready)) waiter.resolve();
  }
}
