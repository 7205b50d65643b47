/**
 * The dedupe index: which identities were counted, when they were booked, and what their payload was.
 *
 * Slots of 20 bytes in typed arrays with open addressing: no object per identity, so 30 million fit in 0.9 GB. 256
 * sub-tables keep the pause of one growth at 1/256 of the whole.
 */

/** The first 96 bits of the identity's keyed hash, as unsigned 32-bit words. */
export interface Fingerprint {
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
}

const SUB_TABLES = 256;
/** Words of a slot: three of the fingerprint, bookedAt in seconds (0 = empty slot), payloadCheck. */
const SLOT_WORDS = 5;
const BOOKED = 3;
const CHECK = 4;
/** Power of two. 256 sub-tables of 16 slots are 80 KiB for an empty partition. */
const SLOTS_INITIAL = 16;
const LOAD_MAX = 0.7;

export class DedupeIndex {
  readonly #tables: SubTable[] = Array.from({ length: SUB_TABLES }, () => new SubTable());
  readonly #horizonSeconds: number;

  /** @param horizonSeconds identities booked longer ago are as good as absent; they leave when their sub-table grows. */
  constructor(horizonSeconds: number) {
    this.#horizonSeconds = horizonSeconds;
  }

  /**
   * The payload check of this identity if it was counted within the horizon before `bookedAt`, else null.
   * @param bookedAt epoch seconds
   */
  find(fingerprint: Fingerprint, bookedAt: number): number | null {
    const table = this.#tableOf(fingerprint);
    const at = table.locate(fingerprint);
    const booked = table.words[at + BOOKED] as number;
    return booked === 0 || bookedAt - booked > this.#horizonSeconds ? null : (table.words[at + CHECK] as number);
  }

  /**
   * Notes a counted identity. The later booking wins, so loading stored identities in any order gives the same index.
   * @param bookedAt epoch seconds, at least 1
   */
  put(fingerprint: Fingerprint, bookedAt: number, payloadCheck: number): void {
    const table = this.#tableOf(fingerprint);
    let at = table.locate(fingerprint);
    const booked = table.words[at + BOOKED] as number;
    if (booked > bookedAt) return;
    if (booked === 0) {
      if (table.isFull()) {
        table.grow(bookedAt - this.#horizonSeconds);
        at = table.locate(fingerprint);
      }
      table.used += 1;
    }
    table.write(at, fingerprint);
    table.words[at + BOOKED] = bookedAt;
    table.words[at + CHECK] = payloadCheck;
  }

  /** Identities held, expired ones that have not left yet included. */
  get size(): number {
    return this.#tables.reduce((sum, table) => sum + table.used, 0);
  }

  /** Bytes of all slots. */
  get sizeBytes(): number {
    return this.#tables.reduce((sum, table) => sum + table.words.byteLength, 0);
  }

  #tableOf(fingerprint: Fingerprint): SubTable {
    return this.#tables[fingerprint.word0 & (SUB_TABLES - 1)] as SubTable;
  }
}

class SubTable {
  words = new Uint32Array(SLOTS_INITIAL * SLOT_WORDS);
  used = 0;
  #mask = SLOTS_INITIAL - 1;

  isFull(): boolean {
    return this.used + 1 > (this.#mask + 1) * LOAD_MAX;
  }

  /** Position of the identity's slot, or of the empty one where it belongs. Ends, because the load stays below 1. */
  locate({ word0, word1, word2 }: Fingerprint): number {
    const { words } = this;
    // word1: the low bits of word0 chose the sub-table, so they are equal for all of its slots.
    for (let slot = word1 & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * SLOT_WORDS;
      if (words[at + BOOKED] === 0) return at;
      if (words[at] === word0 && words[at + 1] === word1 && words[at + 2] === word2) return at;
    }
  }

  write(at: number, { word0, word1, word2 }: Fingerprint): void {
    this.words[at] = word0;
    this.words[at + 1] = word1;
    this.words[at + 2] = word2;
  }

  /** Leaves out what was booked before `keepFrom` (epoch seconds) and doubles the slots when that frees too few. */
  grow(keepFrom: number): void {
    const old = this.words;
    let kept = 0;
    for (let at = BOOKED; at < old.length; at += SLOT_WORDS) if (isKept(old[at] as number, keepFrom)) kept += 1;
    const slots = this.#mask + 1;
    // Half of the load limit: at least as many insertions as survivors until the next time, so growth is O(1) on average.
    const nextSlots = kept > (slots * LOAD_MAX) / 2 ? slots * 2 : slots;
    this.words = new Uint32Array(nextSlots * SLOT_WORDS);
    this.#mask = nextSlots - 1;
    this.used = kept;
    for (let at = 0; at < old.length; at += SLOT_WORDS) {
      if (!isKept(old[at + BOOKED] as number, keepFrom)) continue;
      const slot = { word0: old[at] as number, word1: old[at + 1] as number, word2: old[at + 2] as number };
      this.words.set(old.subarray(at, at + SLOT_WORDS), this.locate(slot));
    }
  }
}

function isKept(booked: number, keepFrom: number): boolean {
  return booked !== 0 && booked >= keepFrom;
}
