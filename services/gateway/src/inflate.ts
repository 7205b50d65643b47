/** Compressed bodies, within limits that a bomb does not pass. */
import { gunzip, inflate, type InputType, type ZlibOptions } from "node:zlib";
import type { Problem } from "./problem.ts";

/** How a body is coded on the wire. `deflate` is the zlib format, as HTTP says. */
export type Coding = "identity" | "gzip" | "deflate";

/** Bytes that one byte may become: usage events of many customers compress to a tenth, deflate's limit is a thousandth. */
export const INFLATE_RATIO_MAX = 20;
/**
 * What every body may become, whatever its ratio: 500 events of 500 bytes. Five hundred events that differ in their id alone
 * compress to a sixtieth, and are no bomb (docs/adr/0014).
 */
export const INFLATE_FREE_BYTES = 262_144;

export type Inflated =
  | { readonly kind: "bytes"; readonly bytes: Buffer }
  | { readonly kind: "problem"; readonly problem: Problem };

const CODINGS: ReadonlyMap<string, Coding> = new Map([
  ["", "identity"],
  ["identity", "identity"],
  ["gzip", "gzip"],
  ["x-gzip", "gzip"],
  ["deflate", "deflate"],
]);

/** Reads `Content-Encoding`; null when it is not one of ours, lists included. */
export function codingOf(header: string | undefined): Coding | null {
  return CODINGS.get((header ?? "").trim().toLowerCase()) ?? null;
}

/** How many bytes a body of so many may become. */
export function inflatedBytesMax(bytes: number, bytesMax: number): number {
  return Math.min(bytesMax, Math.max(INFLATE_FREE_BYTES, INFLATE_RATIO_MAX * bytes));
}

/** Inflates a whole body. Stops at the first byte beyond the limit, so a bomb costs no more than an honest body of that size. */
export async function inflateBody(body: Buffer, coding: "gzip" | "deflate", bytesMax: number): Promise<Inflated> {
  const maxOutputLength = inflatedBytesMax(body.length, bytesMax);
  if (body.length === 0) return refused(400, "BODY_INVALID", "the compressed body is empty");
  try {
    const { bytes, bytesRead } = await run(coding === "gzip" ? gunzip : inflate, body, { maxOutputLength });
    if (bytesRead === body.length) return { kind: "bytes", bytes };
    return refused(400, "BODY_INVALID", `the ${coding} body goes on after its end`);
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === "ERR_BUFFER_TOO_LARGE") {
      const limit = `${bytesMax} bytes, or beyond ${INFLATE_FREE_BYTES} bytes to more than ${INFLATE_RATIO_MAX} times its size`;
      return refused(413, "BODY_TOO_LARGE", `the body inflates to more than ${limit}; split the request`);
    }
    // zlib's own codes: anything else is not the sender's fault.
    if (typeof code === "string" && code.startsWith("Z_") && code !== "Z_MEM_ERROR") {
      return refused(400, "BODY_INVALID", `the body is no whole ${coding} stream`);
    }
    throw error;
  }
}

type Inflater = (body: InputType, options: ZlibOptions, done: (error: Error | null, result: unknown) => void) => void;

function run(inflater: Inflater, body: Buffer, options: ZlibOptions): Promise<{ bytes: Buffer; bytesRead: number }> {
  return new Promise((resolve, reject) => {
    inflater(body, { ...options, info: true }, (error, result) => {
      if (error !== null) {
        reject(error);
        return;
      }
      // With `info` the result has this shape, which the declared types do not know.
      const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } };
      resolve({ bytes: buffer, bytesRead: engine.bytesWritten });
    });
  });
}

function refused(status: number, code: Problem["code"], detail: string): Inflated {
  return { kind: "problem", problem: { status, code, detail } };
}
