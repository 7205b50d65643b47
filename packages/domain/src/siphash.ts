/**
 * SipHash-2-4 with 128-bit output over bytes, in 32-bit halves (a bigint version costs ten times as much).
 * Equal to ClickHouse's sipHash128ReferenceKeyed and to the reference implementation.
 * @see https://github.com/veorq/SipHash (reference vectors, read 2026-11)
 */
export type SipHash = (bytes: Uint8Array, out: Uint32Array, length?: number) => void;

/**
 * Makes a hash function for one 16-byte key, of the first `length` bytes. `out` receives four words, little endian, first word first. Not for
 * concurrent callers of one instance: the state is reused.
 */
export function createSipHash128(key: Uint8Array): SipHash {
  const view = new DataView(key.buffer, key.byteOffset, 16);
  const state = new Int32Array(8);
  // "somepseudorandomlygeneratedbytes" keyed; the second word of v1 marks the variant of 128 bits.
  const initial = [0x70736575, 0x736f6d65, 0x6e646f6d, 0x646f7261, 0x6e657261, 0x6c796765, 0x79746573, 0x74656462];
  const seeded = Int32Array.from(initial, (word, at) => word ^ view.getInt32((at % 4) * 4, true));
  seeded[2] = (seeded[2] as number) ^ 0xee;
  return (bytes, out, length = bytes.length) => {
    state.set(seeded);
    const tail = length & ~7;
    for (let i = 0; i < tail; i += 8) absorb(state, readWord(bytes, i), readWord(bytes, i + 4));
    let low = 0;
    let high = length << 24;
    for (let i = tail; i < length; i += 1) {
      const byte = bytes[i] as number;
      const shift = (i - tail) * 8;
      if (shift < 32) low |= byte << shift;
      else high |= byte << (shift - 32);
    }
    absorb(state, low, high);
    // The reference marks v2 before the first half, v1 before the second.
    state[4] = (state[4] as number) ^ 0xee;
    squeeze(state, out, 0);
    state[2] = (state[2] as number) ^ 0xdd;
    squeeze(state, out, 2);
  };
}

function absorb(state: Int32Array, low: number, high: number): void {
  state[6] = (state[6] as number) ^ low;
  state[7] = (state[7] as number) ^ high;
  rounds(state, 2);
  state[0] = (state[0] as number) ^ low;
  state[1] = (state[1] as number) ^ high;
}

function squeeze(state: Int32Array, out: Uint32Array, at: number): void {
  rounds(state, 4);
  out[at] = (state[0] as number) ^ (state[2] as number) ^ (state[4] as number) ^ (state[6] as number);
  out[at + 1] = (state[1] as number) ^ (state[3] as number) ^ (state[5] as number) ^ (state[7] as number);
}

function readWord(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

/**
 * SipRounds on [v0 low, v0 high, v1 low, v1 high, v2 low, v2 high, v3 low, v3 high]. Locals throughout: typed-array traffic between
 * the rounds doubles the cost. A carry is the sign of the majority of both top bits and the inverted sum's: no float is made.
 */
function rounds(s: Int32Array, count: number): void {
  let v0l = s[0] as number;
  let v0h = s[1] as number;
  let v1l = s[2] as number;
  let v1h = s[3] as number;
  let v2l = s[4] as number;
  let v2h = s[5] as number;
  let v3l = s[6] as number;
  let v3h = s[7] as number;
  for (let turn = 0; turn < count; turn += 1) {
    let sum = (v0l + v1l) | 0;
    v0h = (v0h + v1h + (((v0l & v1l) | ((v0l | v1l) & ~sum)) >>> 31)) | 0;
    v0l = sum;
    let high = (v1h << 13) | (v1l >>> 19);
    let low = (v1l << 13) | (v1h >>> 19);
    v1l = low ^ v0l;
    v1h = high ^ v0h;
    sum = v0l;
    v0l = v0h;
    v0h = sum;
    sum = (v2l + v3l) | 0;
    v2h = (v2h + v3h + (((v2l & v3l) | ((v2l | v3l) & ~sum)) >>> 31)) | 0;
    v2l = sum;
    high = (v3h << 16) | (v3l >>> 16);
    low = (v3l << 16) | (v3h >>> 16);
    v3l = low ^ v2l;
    v3h = high ^ v2h;
    sum = (v0l + v3l) | 0;
    v0h = (v0h + v3h + (((v0l & v3l) | ((v0l | v3l) & ~sum)) >>> 31)) | 0;
    v0l = sum;
    high = (v3h << 21) | (v3l >>> 11);
    low = (v3l << 21) | (v3h >>> 11);
    v3l = low ^ v0l;
    v3h = high ^ v0h;
    sum = (v2l + v1l) | 0;
    v2h = (v2h + v1h + (((v2l & v1l) | ((v2l | v1l) & ~sum)) >>> 31)) | 0;
    v2l = sum;
    high = (v1h << 17) | (v1l >>> 15);
    low = (v1l << 17) | (v1h >>> 15);
    v1l = low ^ v2l;
    v1h = high ^ v2h;
    sum = v2l;
    v2l = v2h;
    v2h = sum;
  }
  s[0] = v0l;
  s[1] = v0h;
  s[2] = v1l;
  s[3] = v1h;
  s[4] = v2l;
  s[5] = v2h;
  s[6] = v3l;
  s[7] = v3h;
}
