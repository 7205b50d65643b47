import { expect, test } from "vitest";
import { createSipHash128 } from "./siphash.ts";

const key = Uint8Array.from({ length: 16 }, (_, i) => i);

/** Reference vectors of SipHash-2-4-128: input 00 01 … of the given length. */
const vectors: readonly (readonly [number, string])[] = [
  [0, "a3817f04ba25a8e66df67214c7550293"],
  [1, "da87c1d86b99af44347659119b22fc45"],
  [2, "8177228da4a45dc7fca38bdef60affe4"],
];

test.each(vectors)("input of %i bytes hashes as the reference does", (length, expected) => {
  const out = new Uint32Array(4);
  createSipHash128(key)(
    Uint8Array.from({ length }, (_, i) => i),
    out,
  );
  expect(Buffer.from(out.buffer).toString("hex")).toBe(expected);
});
