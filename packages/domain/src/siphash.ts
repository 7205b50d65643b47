/**
 * SipHash-2-4 with 128-bit output, as a WebAssembly function of some 400 bytes: 64-bit words are one instruction each there, and
 * three to five in JavaScript's 32-bit halves (a bigint version costs ten times as much). Equal to ClickHouse's
 * sipHash128ReferenceKeyed and to the reference implementation.
 * @see https://github.com/veorq/SipHash (reference vectors, read 2026-11)
 */

/** What is used of WebAssembly, which TypeScript's es2024 library does not describe. */
interface WebAssemblyMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: {
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object) => {
      readonly exports: { readonly memory: WebAssemblyMemory; readonly hash: (endAt: number) => void };
    };
  };
};

/** The module's memory: the keyed start of v0 to v3, the result, then what is hashed. */
const RESULT_AT = 32;
const INPUT_AT = 64;
const WORD_BYTES = 8;
const PAGE_BYTES = 65_536;

/** A hash function of one key with a buffer of its own. Not for concurrent callers: buffer and result are reused. */
export class SipHash128 {
  readonly #memory: WebAssemblyMemory;
  readonly #hash: (endAt: number) => void;
  /** What {@link hash} reads, from its start. Another buffer after {@link reserve}. */
  bytes!: Buffer;
  /** The result: four words, little endian, first word first. Another array after {@link reserve}. */
  words!: Uint32Array;
  /** The same result as two words of 64 bits. */
  wide!: BigUint64Array;

  /** @param key 16 bytes */
  constructor(key: Uint8Array) {
    const { memory, hash } = new WebAssembly.Instance(compiled).exports;
    this.#memory = memory;
    this.#hash = hash;
    this.#view();
    const view = new DataView(key.buffer, key.byteOffset, 16);
    const start = new BigUint64Array(memory.buffer, 0, START.length);
    for (const [at, word] of START.entries()) start[at] = word ^ view.getBigUint64((at % 2) * WORD_BYTES, true);
  }

  /** Makes room for so many bytes. Growing is for good: a stream has its longest text soon. */
  reserve(bytes: number): void {
    const missing = bytes + WORD_BYTES - this.bytes.length;
    if (missing <= 0) return;
    this.#memory.grow(Math.ceil(missing / PAGE_BYTES));
    this.#view();
  }

  /** Hashes the first `length` bytes of {@link bytes} into {@link words}; for at least one word behind them there must be room. */
  hash(length: number): void {
    const { bytes } = this;
    const lengthAt = length | (WORD_BYTES - 1);
    for (let at = length; at < lengthAt; at += 1) bytes[at] = 0;
    bytes[lengthAt] = length;
    this.#hash(INPUT_AT + lengthAt + 1);
  }

  #view(): void {
    const { buffer } = this.#memory;
    this.bytes = Buffer.from(buffer, INPUT_AT);
    this.words = new Uint32Array(buffer, RESULT_AT, 4);
    this.wide = new BigUint64Array(buffer, RESULT_AT, 2);
  }
}

/** "somepseudorandomlygeneratedbytes", the second word marked for the variant of 128 bits. */
const START = [0x736f6d6570736575n, 0x646f72616e646f6dn ^ 0xeen, 0x6c7967656e657261n, 0x7465646279746573n];

/*
 * The module, by hand. Parameter 0 is the address behind the input; local 1 walks through it; locals 2 to 5 are v0 to v3, local 6
 * is the word in hand.
 */
const [END, AT, V0, V1, V2, V3, WORD] = [0, 1, 2, 3, 4, 5, 6];
const [I32, I64] = [0x7f, 0x7e];
const [LOOP, BRANCH_IF, BLOCK_END, NO_RESULT] = [0x03, 0x0d, 0x0b, 0x40];
const [I32_CONST, I32_ADD, I32_NOT_EQUAL] = [0x41, 0x6a, 0x47];
const [I64_CONST, I64_ADD, I64_XOR, I64_ROTATE_LEFT] = [0x42, 0x7c, 0x85, 0x89];

const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
/** Both take the address from the stack; 3 is the alignment, 2^3 bytes. */
const load = (offset: number): number[] => [0x29, 3, offset];
const store = (offset: number): number[] => [0x37, 3, offset];
const add = (to: number, from: number): number[] => [...get(to), ...get(from), I64_ADD, ...set(to)];
const xor = (to: number, from: number): number[] => [...get(to), ...get(from), I64_XOR, ...set(to)];
const rotate = (local: number, by: number): number[] => [...get(local), I64_CONST, by, I64_ROTATE_LEFT, ...set(local)];
/** Constants of 128 to 255 take two bytes, of which the first holds seven bits. */
const mark = (local: number, byte: number): number[] => [
  ...get(local),
  I64_CONST,
  byte | 0x80,
  byte >> 7,
  I64_XOR,
  ...set(local),
];
const ROUND = [
  [add(V0, V1), rotate(V1, 13), xor(V1, V0), rotate(V0, 32)],
  [add(V2, V3), rotate(V3, 16), xor(V3, V2)],
  [add(V0, V3), rotate(V3, 21), xor(V3, V0)],
  [add(V2, V1), rotate(V1, 17), xor(V1, V2), rotate(V2, 32)],
].flat(2);
const FOUR_ROUNDS = [ROUND, ROUND, ROUND, ROUND].flat();
const squeeze = (offset: number): number[] =>
  [[I32_CONST, 0], get(V0), get(V1), [I64_XOR], get(V2), [I64_XOR], get(V3), [I64_XOR], store(offset)].flat();
const BODY = [
  // Locals beside the parameter: one address, five words.
  [2, 1, I32, 5, I64],
  [V0, V1, V2, V3].flatMap((local, at) => [I32_CONST, 0, ...load(at * WORD_BYTES), ...set(local)]),
  // 64 takes two bytes: the seventh bit of the last one is the sign.
  [I32_CONST, INPUT_AT | 0x80, 0, ...set(AT)],
  [LOOP, NO_RESULT],
  [get(AT), load(0), set(WORD), xor(V3, WORD), ROUND, ROUND, xor(V0, WORD)].flat(),
  [...get(AT), I32_CONST, WORD_BYTES, I32_ADD, ...set(AT)],
  [...get(AT), ...get(END), I32_NOT_EQUAL, BRANCH_IF, 0, BLOCK_END],
  [mark(V2, 0xee), FOUR_ROUNDS, squeeze(RESULT_AT)].flat(),
  [mark(V1, 0xdd), FOUR_ROUNDS, squeeze(RESULT_AT + WORD_BYTES)].flat(),
  [BLOCK_END],
].flat();

/** Lengths in LEB128. */
function leb(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...leb(content.length), ...content];
}

function name(text: string): number[] {
  return [text.length, ...Buffer.from(text, "ascii")];
}

const compiled = new WebAssembly.Module(
  Uint8Array.from(
    [
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      // One type, (i32) -> (); one function of it; one memory of a page or more; two exports; the code.
      section(1, [1, 0x60, 1, I32, 0]),
      section(3, [1, 0]),
      section(5, [1, 0, 1]),
      section(7, [2, ...name("memory"), 2, 0, ...name("hash"), 0, 0]),
      section(10, [1, ...leb(BODY.length), ...BODY]),
    ].flat(),
  ),
);
