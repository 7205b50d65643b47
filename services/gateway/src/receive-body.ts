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
  // Not destroyed on the way out: that would cut the connection that the refusal is to be written to.
  for await (const chunk of payload.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) return tooLarge;
    if (coding === "identity") {
      const problem = reader.write(chunk);
      if (problem !== null) return { kind: "problem", problem };
    } else compressed.push(chunk);
  }
  if (coding !== "identity") {
    const inflated = await inflateBody(Buffer.concat(compressed), coding, plan.inflatedBytesMax);
    if (inflated.kind === "problem") return inflated;
    plan.onInflated(inflated.bytes.length);
    const problem = reader.write(inflated.bytes);
    if (problem !== null) return { kind: "problem", problem };
  }
  return reader.end();
}

/** 413: the body as sent is too long. */
export function bodyTooLarge(bodyBytesMax: number): Problem {
  return {
    status: 413,
    code: "BODY_TOO_LARGE",
    detail: `a body has at most ${bodyBytesMax} bytes; split the request`,
  };
}
