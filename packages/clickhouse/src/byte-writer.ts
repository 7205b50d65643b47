import { assert } from "@tallyhouse/domain";

/**
 * Most bytes of one INSERT. A flush is at most 64 MiB of records; rows repeat no more than their identity and times,
 * so eight times that is a bug of the caller, not a busy hour.
 */
const BYTES_MAX = 512 * 1024 * 1024;
/** Texts below this length are copied by a loop; a call into Node's encoder costs more than so many characters. */
const SHORT_TEXT_CHARACTERS = 24;
/** One UTF-16 unit takes at most three bytes of UTF-8. */
const BYTES_PER_UNIT_MAX = 3;
/** A length below 2^35 takes at most so many bytes. */
const LENGTH_BYTES_MAX = 5;

/** Bytes written one after another into memory that grows. Little-endian, as ClickHouse stores numbers. */
export class ByteWriter {
  /** The memory; {@link reserve} may replace it. */
  view: DataView;
  /** Where the next byte goes. */
  at = 0;
  #bytes: Buffer;

  /** `bytesExpected`: a guess that fits spares copies. */
  constructor(bytesExpected: number) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.min(Math.max(bytesExpected, 1_024), BYTES_MAX));
    this.view = viewOf(this.#bytes);
  }

  /** What was written. No copy: write no more afterwards. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.at);
  }

  /**
   * Makes room for so many bytes more.
   * @throws {InvariantError} beyond {@link BYTES_MAX}.
   */
  reserve(bytes: number): void {
    const needed = this.at + bytes;
    if (needed <= this.#bytes.length) return;
    assert(needed <= BYTES_MAX, `an insert is larger than ${BYTES_MAX} bytes`);
    const grown = Buffer.allocUnsafeSlow(Math.min(Math.max(needed, 2 * this.#bytes.length), BYTES_MAX));
    this.#bytes.copy(grown, 0, 0, this.at);
    this.#bytes = grown;
    this.view = viewOf(grown);
  }

  /** A length or a count, seven bits to a byte. */
  length(value: number): void {
    this.reserve(LENGTH_BYTES_MAX);
    let rest = value;
    while (rest >= 0x80) {
      this.view.setUint8(this.at, (rest % 0x80) + 0x80);
      this.at += 1;
      rest = Math.floor(rest / 0x80);
    }
    this.view.setUint8(this.at, rest);
    this.at += 1;
  }

  /** A whole number below 2^53 in eight bytes. */
  uint64(value: number): void {
    this.reserve(8);
    this.view.setUint32(this.at, value % 2 ** 32, true);
    this.view.setUint32(this.at + 4, Math.floor(value / 2 ** 32), true);
    this.at += 8;
  }

  /** Unsigned numbers of one, two or four bytes each. */
  unsigned(values: Uint32Array, bytesEach: number): void {
    this.reserve(bytesEach * values.length);
    for (const value of values) {
      if (bytesEach === 1) this.view.setUint8(this.at, value);
      else if (bytesEach === 2) this.view.setUint16(this.at, value, true);
      else this.view.setUint32(this.at, value, true);
      this.at += bytesEach;
    }
  }

  /** Length and UTF-8. Unpaired surrogates, which UTF-8 cannot hold, become U+FFFD. */
  text(value: string): void {
    this.reserve(LENGTH_BYTES_MAX + BYTES_PER_UNIT_MAX * value.length);
    if (value.length < SHORT_TEXT_CHARACTERS && this.#shortAscii(value)) return;
    const start = this.at;
    // Right for ASCII; other text may need a longer length and moves then.
    const guess = lengthBytesOf(value.length);
    const bytes = this.#bytes.write(value, start + guess, "utf8");
    const lengthBytes = lengthBytesOf(bytes);
    if (lengthBytes !== guess) this.#bytes.copyWithin(start + lengthBytes, start + guess, start + guess + bytes);
    this.length(bytes);
    this.at = start + lengthBytes + bytes;
  }

  /** False, with nothing written, when a character is not ASCII. */
  #shortAscii(value: string): boolean {
    const { view, at } = this;
    for (let index = 0; index < value.length; index += 1) {
      const unit = value.charCodeAt(index);
      if (unit >= 0x80) return false;
      view.setUint8(at + 1 + index, unit);
    }
    view.setUint8(at, value.length);
    this.at = at + 1 + value.length;
    return true;
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function lengthBytesOf(length: number): number {
  let bytes = 1;
  for (let rest = length; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes += 1;
  return bytes;
}
