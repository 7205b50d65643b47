/** The bytes of one request's body, from the connection to its reader. */
import type { Readable } from "node:stream";
import type { BodyReader, BodyReading } from "./body.ts";
import { type Coding, inflateBody } from "./inflate.ts";
import type { Problem } from "./problem.ts";

export interface BodyPlan {
  readonly coding: Coding;
  /** `Content-Length`; undefined for a body in chunks. */
  readonly announcedBytes: number | undefined;
  readonly bodyBytesMax: number;
  readonly inflatedBytesMax: number;
  readonly reader: BodyReader;
  /** Told the size of a compressed body once it is inflated. */
  readonly onInflated: (bytes: number) => void;
}

/**
 * Receives a body and reads it: as it comes when it is plain, whole when it is compressed. Stops receiving at the first byte beyond a
 * limit, and leaves the rest where it is.
 */
export async function receiveBody(payload: Readable, plan: BodyPlan): Promise<BodyReading> {
  const { coding, bodyBytesMax, reader } = plan;
  const tooLarge: BodyReading = { kind: "problem", problem: bodyTooLarge(bodyBytesMax) };
  if ((plan.announcedBytes ?? 0) > bodyBytesMax) return tooLarge;
  const compressed: Buffer[] = [];
  let bytes = 0;
  const refusal = await receiveChunks(payload, (chunk) => {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) return tooLarge;
    if (coding === "identity") {
      const problem = reader.write(chunk);
      return problem === null ? null : { kind: "problem", problem };
    }
    compressed.push(chunk);
    return null;
  });
  if (refusal !== null) return refusal;
  if (coding !== "identity") {
    const inflated = await inflateBody(Buffer.concat(compressed), coding, plan.inflatedBytesMax);
    if (inflated.kind === "problem") return inflated;
    plan.onInflated(inflated.bytes.length);
    const problem = reader.write(inflated.bytes);
    if (problem !== null) return { kind: "problem", problem };
  }
  return reader.end();
}

/**
 * Hands chunks on as they come, until the end or the first refusal, which it returns. By events: an iterator costs four promises a
 * request. The stream is never destroyed: that would cut the connection that a refusal is to be written to.
 */
function receiveChunks(payload: Readable, take: (chunk: Buffer) => BodyReading | null): Promise<BodyReading | null> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      payload.off("data", onData).off("end", onEnd).off("error", onError).off("close", onClose);
    };
    const onEnd = (): void => {
      leave();
      resolve(null);
    };
    const onError = (error: Error): void => {
      leave();
      reject(error);
    };
    const onClose = (): void => onError(Object.assign(new Error("aborted"), { code: "ECONNRESET" }));
    const onData = (chunk: Buffer): void => {
      let refusal: BodyReading | null;
      try {
        refusal = take(chunk);
      } catch (error) {
        leave();
        reject(error instanceof Error ? error : new Error("a reader threw no error", { cause: error }));
        return;
      }
      if (refusal === null) return;
      leave();
      payload.pause();
      resolve(refusal);
    };
    // The caller went while its credential was looked up: no event would come any more.
    if (payload.destroyed) onClose();
    else payload.on("end", onEnd).on("error", onError).on("close", onClose).on("data", onData);
  });
}

/** 413: the body as sent is too long. */
export function bodyTooLarge(bodyBytesMax: number): Problem {
  return {
    status: 413,
    code: "BODY_TOO_LARGE",
    detail: `a body has at most ${bodyBytesMax} bytes; split the request`,
  };
}
