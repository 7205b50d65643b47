import { writeSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Written without a thread: into the page cache these take some 20 µs, what handing them to a thread and back costs on the event
 * loop alone. Nothing is being written back meanwhile that they could wait for: each commit ends with its fdatasync.
 */
const WRITE_AT_ONCE_BYTES_MAX = 65_536;

/** One open file. All calls of one file come one after the other, except `close`. */
export interface LogFile {
  /** Reads into `bytes` from `position`; the number read is short only at the end of the file. */
  read(bytes: Buffer, position: number): Promise<number>;
  /** Writes all of `bytes` at `position`, or rejects and may have written a part. */
  write(bytes: Buffer, position: number): Promise<void>;
  /** fdatasync: contents and length are on the disk when it resolves. */
  datasync(): Promise<void>;
  /** fsync: like `datasync`, and the file itself with all its metadata. */
  sync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** The file-system calls of the embedded log, and nothing else: tests put failures and kills behind each of them. */
export interface FileSystem {
  /** Creates the folder and its parents, durably; an existing one is fine. */
  makeFolder(path: string): Promise<void>;
  list(path: string): Promise<readonly string[]>;
  /** A new, empty file to read and write; an existing one is emptied. */
  create(path: string): Promise<LogFile>;
  /** An existing file to read and write. */
  open(path: string): Promise<LogFile>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; an absent one is fine. */
  remove(path: string): Promise<void>;
  /** Makes the folder's entries durable: new and renamed files survive a power loss only after it. */
  syncFolder(path: string): Promise<void>;
}

/** The real disk. */
export const diskFileSystem: FileSystem = {
  makeFolder: async (path) => {
    const first = await mkdir(path, { recursive: true });
    // Every level that was made is an entry of the one above it, and only an fsync there keeps it.
    for (let made = first === undefined ? null : path; made !== null; made = made === first ? null : dirname(made)) {
      await syncFolder(dirname(made));
    }
  },
  list: (path) => readdir(path),
  create: async (path) => new DiskFile(await open(path, "w+")),
  open: async (path) => new DiskFile(await open(path, "r+")),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { force: true }),
  syncFolder,
};

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

class DiskFile implements LogFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async read(bytes: Buffer, position: number): Promise<number> {
    let done = 0;
    while (done < bytes.length) {
      const { bytesRead } = await this.#handle.read(bytes, done, bytes.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async write(bytes: Buffer, position: number): Promise<void> {
    let done = 0;
    if (bytes.length <= WRITE_AT_ONCE_BYTES_MAX) {
      const { fd } = this.#handle;
      while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
    }
    while (done < bytes.length) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  }

  datasync(): Promise<void> {
    return this.#handle.datasync();
  }

  sync(): Promise<void> {
    return this.#handle.sync();
  }

  truncate(bytes: number): Promise<void> {
    return this.#handle.truncate(bytes);
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
