import { BYTES_PER_IDENTITY_MAX, type DedupeIndex } from "./dedupe-index.ts";
import { halt } from "./halt.ts";
import type { HourOfIdentities } from "./identity-rows.ts";

/** Share of the limit above which the process says that it is nearly reached. */
const NEARLY_SHARE = 0.8;
const GIB = 2 ** 30;

/**
 * The memory of all dedupe indexes of this process, and its limit. Beyond the limit the process halts: an index that
 * forgets would count twice, and a process that the system kills for its memory says nothing of what to do.
 */
export class DedupeMemory {
  readonly #bytesMax: number;
  readonly #partitionCount: number;
  readonly #indexes = new Set<DedupeIndex>();

  constructor(limit: { bytesMax: number; partitionCount: number }) {
    this.#bytesMax = limit.bytesMax;
    this.#partitionCount = limit.partitionCount;
  }

  /**
   * Makes room in an empty index for the identities of a partition that is opened, and counts it until {@link release}.
   * @throws {TallyhouseError} DEDUPE_MEMORY_EXCEEDED (halt) before any memory is taken.
   */
  claim(index: DedupeIndex, partition: number, hours: readonly HourOfIdentities[]): void {
    const identities = hours.reduce((sum, hour) => sum + hour.identities, 0);
    const neededBytes = Math.max(index.sizeBytes, identities * BYTES_PER_IDENTITY_MAX);
    const heldBytes = this.sizeBytes;
    if (heldBytes + neededBytes > this.#bytesMax) {
      const totalBytes = heldBytes + neededBytes;
      const perPartitionBytes = totalBytes / (this.#indexes.size + 1);
      // All partitions age alike, because a hash chose them: what fits of this one fits of each.
      const horizonHours = horizonThatFits(hours, identities * (this.#bytesMax / totalBytes));
      const horizon =
        horizonHours < 1
          ? "no horizon of an hour or more fits"
          : `with the partitions it has, a DEDUPE_HORIZON_HOURS of ${horizonHours} fits, and a MAX_AGE_HOURS below it`;
      throw this.#exceeded(
        `partition ${partition} needs ${gib(neededBytes)} for ${identities} identities, and ${this.#indexes.size} other partitions hold ` +
          gib(heldBytes),
        `${this.#processesThatFit(perPartitionBytes)}; ${horizon}`,
      );
    }
    index.reserve(identities);
    this.#indexes.add(index);
  }

  /** The partition was taken away, or its opening failed. Safe to repeat. */
  release(index: DedupeIndex): void {
    this.#indexes.delete(index);
  }

  /** Bytes of all slots of the indexes that are claimed. */
  get sizeBytes(): number {
    let bytes = 0;
    for (const index of this.#indexes) bytes += index.sizeBytes;
    return bytes;
  }

  /** Identities held, expired ones that have not left yet included. */
  get size(): number {
    let identities = 0;
    for (const index of this.#indexes) identities += index.size;
    return identities;
  }

  /**
   * What is to be said of the memory now; null for nothing. Cheap: asked after each batch.
   * @throws {TallyhouseError} DEDUPE_MEMORY_EXCEEDED (halt). What is folded and not stored is folded again after a restart.
   */
  check(): string | null {
    const { sizeBytes } = this;
    if (sizeBytes > this.#bytesMax) {
      const what = `${this.size} identities of ${this.#indexes.size} partitions take ${gib(sizeBytes)}`;
      throw this.#exceeded(what, this.#processesThatFit(sizeBytes / this.#indexes.size));
    }
    if (sizeBytes <= this.#bytesMax * NEARLY_SHARE) return null;
    return `the dedupe index takes ${gib(sizeBytes)} of DEDUPE_MEMORY_BYTES_MAX (${gib(this.#bytesMax)}): at the limit this process halts`;
  }

  #processesThatFit(perPartitionBytes: number): string {
    const each = Math.floor(this.#bytesMax / perPartitionBytes);
    if (each === 0) return `a single partition exceeds it, so no number of processes is enough`;
    const processes = Math.ceil(this.#partitionCount / each);
    return `${processes} processes with ${each} of the ${this.#partitionCount} partitions each fit`;
  }

  #exceeded(what: string, remedy: string): Error {
    return halt(
      "DEDUPE_MEMORY_EXCEEDED",
      `${what}: more than DEDUPE_MEMORY_BYTES_MAX (${gib(this.#bytesMax)}). Raise it if the machine has the memory; else ${remedy}`,
    );
  }
}

/** The most whole hours before the newest booking that hold no more than `identitiesMax`. */
function horizonThatFits(hours: readonly HourOfIdentities[], identitiesMax: number): number {
  const newestFirst = hours.toSorted((a, b) => b.hour - a.hour);
  const newest = newestFirst[0]?.hour ?? 0;
  let held = 0;
  for (const { hour, identities } of newestFirst) {
    held += identities;
    // This hour is too much, so the horizon must end after it; it may begin anywhere in the newest hour.
    if (held > identitiesMax) return Math.max(0, newest - hour - 1);
  }
  return newest - (newestFirst.at(-1)?.hour ?? newest);
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(3)} GiB`;
}
