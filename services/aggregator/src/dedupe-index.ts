/**
 * The dedupe index: which identities were counted, when they were booked, and what their payload was.
 *
 * Slots of 20 bytes in typed arrays with open addressing: no object per identity. 256 sub-tables keep the pause of one
 * growth at 1/256 of the whole. A sub-table is filled to 0.75 and grows to 0.75 / 1.12 = 0.67 of what it keeps, so a
 * large index takes 26.7 to 29.9 bytes per identity at every moment; doubling would take up to 53. The price is that
 * an identity moves 1 / 0.12 = 8 times in its life, in the order of the memory: 0.3 µs together (measured).
 */

/** The first 96 bits of the identity's keyed hash, as unsigned 32-bit words. */
export interface Fingerprint {
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
}

const SUB_TABLES = 256;
/**
 * The highest 8 bits of word1, and with them of `identities.fpHigh`: rows that are read in the order of that key stay in
 * one small sub-table for a while, which the processor's cache holds.
 */
const SUB_TABLE_SHIFT = 24;
/** Words of a row and of a slot: three of the fingerprint, bookedAt in seconds (0 = empty slot), payloadCheck. */
export const ROW_WORDS = 5;
const BOOKED = 3;
const CHECK = 4;
const LOAD_MAX = 0.75;
const GROWTH = 1.12;
/** 256 sub-tables of 16 slots are 80 KiB for an empty partition. */
const SLOTS_MIN = 16;
const WORD_VALUES = 2 ** 32;

/** What a large index takes at most for each identity; small ones (below 100,000) take more. */
export const BYTES_PER_IDENTITY_MAX = 30;

export class DedupeIndex {
  readonly #tables: SubTable[] = Array.from({ length: SUB_TABLES }, () => new SubTable());
  readonly #horizonSeconds: number;
  readonly #row = new Uint32Array(ROW_WORDS);
  #size = 0;
  #slots = SUB_TABLES * SLOTS_MIN;

  /** @param horizonSeconds identities booked longer ago are as good as absent; they leave when their sub-table grows. */
  constructor(horizonSeconds: number) {
    this.#horizonSeconds = horizonSeconds;
  }

  /** Makes room for so many identities at once. Only for an empty index: growing to them would move each several times. */
  reserve(identities: number): void {
    for (const table of this.#tables) {
      table.resize(Math.ceil(identities / SUB_TABLES), 0);
    }
    this.#slots = this.#tables.reduce((sum, table) => sum + table.slots, 0);
  }

  /**
   * The payload check of this identity if it was counted within the horizon before `bookedAt`, else null.
   * @param bookedAt epoch seconds
   */
  find({ word0, word1, word2 }: Fingerprint, bookedAt: number): number | null {
    const row = this.#row;
    row[0] = word0;
    row[1] = word1;
    row[2] = word2;
    const table = this.#tables[word1 >>> SUB_TABLE_SHIFT] as SubTable;
    const at = table.locate(row, 0);
    const booked = table.words[at + BOOKED] as number;
    return booked === 0 || bookedAt - booked > this.#horizonSeconds ? null : (table.words[at + CHECK] as number);
  }

  /**
   * Notes a counted identity. The later booking wins, so loading stored identities in any order gives the same index.
   * @param bookedAt epoch seconds, at least 1
   */
  put({ word0, word1, word2 }: Fingerprint, bookedAt: number, payloadCheck: number): void {
    const row = this.#row;
    row[0] = word0;
    row[1] = word1;
    row[2] = word2;
    row[BOOKED] = bookedAt;
    row[CHECK] = payloadCheck;
    this.#putRow(row, 0);
  }

  /** {@link put} for each {@link ROW_WORDS} words: word0, word1, word2, bookedAt, payloadCheck. */
  putRows(rows: Uint32Array): void {
    for (let from = 0; from < rows.length; from += ROW_WORDS) this.#putRow(rows, from);
  }

  /** Identities held, expired ones that have not left yet included. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of all slots. */
  get sizeBytes(): number {
    return this.#slots * ROW_WORDS * Uint32Array.BYTES_PER_ELEMENT;
  }

  #putRow(rows: Uint32Array, from: number): void {
    const table = this.#tables[(rows[from + 1] as number) >>> SUB_TABLE_SHIFT] as SubTable;
    let at = table.locate(rows, from);
    const booked = table.words[at + BOOKED] as number;
    const bookedAt = rows[from + BOOKED] as number;
    if (booked > bookedAt) return;
    if (booked === 0) {
      if (table.isFull()) {
        this.#grow(table, bookedAt - this.#horizonSeconds);
        at = table.locate(rows, from);
      }
      table.used += 1;
      this.#size += 1;
    }
    table.write(at, rows, from);
  }

  #grow(table: SubTable, keepFrom: number): void {
    const { used, slots } = table;
    table.resize(table.countFrom(keepFrom), keepFrom);
    this.#size += table.used - used;
    this.#slots += table.slots - slots;
  }
}

class SubTable {
  words = new Uint32Array(SLOTS_MIN * ROW_WORDS);
  slots = SLOTS_MIN;
  used = 0;
  #usedMax = SLOTS_MIN * LOAD_MAX;
  #slotsPerValue = SLOTS_MIN / WORD_VALUES;

  isFull(): boolean {
    return this.used + 1 > this.#usedMax;
  }

  /** Position of the row's slot, or of the empty one where it belongs. Ends, because the load stays below 1. */
  locate(rows: Uint32Array, from: number): number {
    const { words } = this;
    const word0 = rows[from] as number;
    const word1 = rows[from + 1] as number;
    const word2 = rows[from + 2] as number;
    // A slot by the share of word0 in its range: any number of slots will do, and growth reads and writes in order.
    let at = Math.floor(word0 * this.#slotsPerValue) * ROW_WORDS;
    for (;;) {
      if (words[at + BOOKED] === 0) return at;
      if (words[at] === word0 && words[at + 1] === word1 && words[at + 2] === word2) return at;
      at += ROW_WORDS;
      if (at === words.length) at = 0;
    }
  }

  /** By hand: `set` of a `subarray` would make an object for each 20 bytes. */
  write(at: number, rows: Uint32Array, from: number): void {
    for (let word = 0; word < ROW_WORDS; word += 1) this.words[at + word] = rows[from + word] as number;
  }

  /** How many identities were booked at or after `keepFrom` (epoch seconds). */
  countFrom(keepFrom: number): number {
    const { words } = this;
    let kept = 0;
    for (let at = BOOKED; at < words.length; at += ROW_WORDS) if (isKept(words[at] as number, keepFrom)) kept += 1;
    return kept;
  }

  /** Makes room for `identities` and leaves out what was booked before `keepFrom`. A shrunken sub-table gives memory back. */
  resize(identities: number, keepFrom: number): void {
    const old = this.words;
    this.slots = Math.max(SLOTS_MIN, Math.ceil((identities * GROWTH) / LOAD_MAX));
    this.words = new Uint32Array(this.slots * ROW_WORDS);
    this.#usedMax = this.slots * LOAD_MAX;
    this.#slotsPerValue = this.slots / WORD_VALUES;
    this.used = 0;
    for (let from = 0; from < old.length; from += ROW_WORDS) {
      if (!isKept(old[from + BOOKED] as number, keepFrom)) continue;
      this.write(this.locate(old, from), old, from);
      this.used += 1;
    }
  }
}

function isKept(booked: number, keepFrom: number): boolean {
  return booked !== 0 && booked >= keepFrom;
}
