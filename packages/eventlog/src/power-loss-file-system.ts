import { dirname } from "node:path";
import type { FileSystem, LogFile } from "./file-system.ts";

/** A write that no fsync has covered yet. */
type Change =
  | { readonly kind: "write"; readonly bytes: Buffer; readonly position: number }
  | { readonly kind: "cut"; readonly bytes: number };

class SimulatedInode {
  durable: Buffer = Buffer.alloc(0);
  readonly unsynced: Change[] = [];

  get cached(): Buffer {
    return this.unsynced.reduce(applied, this.durable);
  }

  sync(): void {
    this.durable = this.cached;
    this.unsynced.length = 0;
  }

  /** What a power loss leaves: some of the changes in order, the last one torn, perhaps with zeros where bytes were. */
  lose(random: () => number): void {
    const keptCount = Math.floor(random() * (this.unsynced.length + 1));
    const kept = this.unsynced.splice(0).slice(0, keptCount);
    const last = kept.pop();
    let bytes = kept.reduce(applied, this.durable);
    if (last?.kind === "write") {
      const torn = Buffer.from(last.bytes);
      torn.fill(0, Math.floor(random() * (torn.length + 1)));
      const length = Math.floor(random() * (torn.length + 1));
      bytes = applied(bytes, { ...last, bytes: torn.subarray(0, length) });
    } else if (last !== undefined) bytes = applied(bytes, last);
    this.durable = bytes;
  }
}

function applied(content: Buffer, change: Change): Buffer {
  if (change.kind === "cut") return Buffer.from(content.subarray(0, change.bytes));
  const bytes = Buffer.alloc(Math.max(content.length, change.position + change.bytes.length));
  content.copy(bytes);
  change.bytes.copy(bytes, change.position);
  return bytes;
}

/** Thrown by every call after the power went. */
export class PowerLoss extends Error {
  override readonly name = "PowerLoss";
}

/** What a test may put in the way of one call; `count` numbers all calls from 1. */
export interface CallFault {
  readonly call: keyof FileSystem | keyof LogFile;
  readonly path: string;
  readonly count: number;
}

/**
 * A disk in memory that remembers what an fsync made durable and forgets the rest at {@link PowerLossFileSystem.losePower}:
 * unsynced bytes, new and renamed files in a folder that was not synced. For tests.
 */
export class PowerLossFileSystem implements FileSystem {
  /** May throw in place of the call, delay it, or let it happen. */
  beforeCall: (fault: CallFault) => void | Promise<void> = () => undefined;
  callCount = 0;
  /** Room for written bytes; a write beyond it writes what fits and fails with ENOSPC. */
  freeBytes = Infinity;
  readonly #folders = new Set<string>();
  readonly #cached = new Map<string, SimulatedInode>();
  #durable = new Map<string, SimulatedInode>();

  /** The power fails and comes back: only what was synced is sure to be there. Nothing is open any more. */
  losePower(random: () => number): void {
    const survivors = new Map(this.#durable);
    // An entry may have reached the disk without being asked to.
    for (const [path, inode] of this.#cached) if (random() < 0.5) survivors.set(path, inode);
    for (const path of this.#durable.keys()) if (!this.#cached.has(path) && random() < 0.5) survivors.delete(path);
    for (const inode of new Set(survivors.values())) inode.lose(random);
    this.#cached.clear();
    for (const [path, inode] of survivors) this.#cached.set(path, inode);
    this.#durable = survivors;
    this.callCount = 0;
  }

  async makeFolder(path: string): Promise<void> {
    await this.#enter("makeFolder", path);
    this.#folders.add(path);
  }

  async list(path: string): Promise<readonly string[]> {
    await this.#enter("list", path);
    return [...this.#cached.keys()].filter((file) => dirname(file) === path).map((file) => file.slice(path.length + 1));
  }

  async create(path: string): Promise<LogFile> {
    await this.#enter("create", path);
    if (!this.#folders.has(dirname(path))) throw new Error(`no folder for ${path}`);
    const inode = new SimulatedInode();
    this.#cached.set(path, inode);
    return this.#file(path, inode);
  }

  async open(path: string): Promise<LogFile> {
    await this.#enter("open", path);
    return this.#file(path, this.#inode(path));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#enter("rename", from);
    this.#cached.set(to, this.#inode(from));
    this.#cached.delete(from);
  }

  async remove(path: string): Promise<void> {
    await this.#enter("remove", path);
    this.#cached.delete(path);
  }

  async syncFolder(path: string): Promise<void> {
    await this.#enter("syncFolder", path);
    for (const file of new Set([...this.#cached.keys(), ...this.#durable.keys()])) {
      if (dirname(file) !== path) continue;
      const inode = this.#cached.get(file);
      if (inode === undefined) this.#durable.delete(file);
      else this.#durable.set(file, inode);
    }
  }

  #file(path: string, inode: SimulatedInode): LogFile {
    const write = async (bytes: Buffer, position: number): Promise<void> => {
      await this.#enter("write", path);
      const room = Math.min(bytes.length, this.freeBytes);
      this.freeBytes -= room;
      inode.unsynced.push({ kind: "write", bytes: Buffer.from(bytes.subarray(0, room)), position });
      if (room < bytes.length) throw Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" });
    };
    const sync = async (call: "sync" | "datasync"): Promise<void> => {
      await this.#enter(call, path);
      inode.sync();
    };
    return {
      read: async (bytes, position) => {
        await this.#enter("read", path);
        return inode.cached.copy(bytes, 0, position);
      },
      write,
      truncate: async (bytes) => {
        await this.#enter("truncate", path);
        inode.unsynced.push({ kind: "cut", bytes });
      },
      datasync: () => sync("datasync"),
      sync: () => sync("sync"),
      size: async () => {
        await this.#enter("size", path);
        return inode.cached.length;
      },
      close: async () => undefined,
    };
  }

  #inode(path: string): SimulatedInode {
    const inode = this.#cached.get(path);
    if (inode === undefined) throw new Error(`no file ${path}`);
    return inode;
  }

  async #enter(call: CallFault["call"], path: string): Promise<void> {
    this.callCount += 1;
    await this.beforeCall({ call, path, count: this.callCount });
  }
}
