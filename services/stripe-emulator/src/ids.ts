import { hash } from "node:crypto";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/**
 * A text of `length` letters and digits that looks random and follows from seed and name alone, so that equal seeds
 * and equal commands give equal ids.
 */
export function seededText(seed: string, name: string, length: number): string {
  const digest = hash("sha512", `${seed}\n${name}`, "buffer");
  let text = "";
  for (let at = 0; at < length; at += 1) text += BASE62.charAt((digest[at] ?? 0) % BASE62.length);
  return text;
}
