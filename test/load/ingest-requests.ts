/** Requests that are built before the clock runs, so that sending them costs next to nothing. */
import { usageStream } from "./usage-stream.ts";

/** Events of one round; the next round sends the same requests under other identities. */
const POOL_EVENTS_MAX = 200_000;
const ROUND_DIGITS = 4;

/** One request as it goes over the connection, and where its identities carry the round's number. */
interface PooledRequest {
  readonly bytes: Buffer;
  readonly roundsAt: readonly number[];
  readonly ids: readonly string[];
}

export interface RequestPool {
  readonly requests: readonly PooledRequest[];
  readonly eventBytesMean: number;
  /** The request's bytes in this round. Valid until the same request is asked for again. */
  bytesOf(index: number, round: number): Buffer;
}

/** The identity's `id` in a round. */
export function idInRound(id: string, round: number): string {
  return `r${roundText(round)}-${id}`;
}

function roundText(round: number): string {
  return String(round).padStart(ROUND_DIGITS, "0");
}

/** Builds the requests of one round: at most 200,000 events, a tenth of them repeated. Deterministic for one seed and time. */
export function buildRequestPool(options: {
  seed: number;
  nowAt: number;
  events: number;
  eventsPerRequest: number;
  token: string;
}): RequestPool {
  const { seed, nowAt, eventsPerRequest, token } = options;
  const source = usageStream({ seed, nowAt });
  const requests: PooledRequest[] = [];
  const count = Math.ceil(Math.min(options.events, POOL_EVENTS_MAX) / eventsPerRequest);
  let eventBytes = 0;
  while (requests.length < count) {
    const events = Array.from({ length: eventsPerRequest }, () => source.next().value as { id: string; text: string });
    const texts = events.map(({ id, text }) => text.replace(`"id":"${id}"`, `"id":"${idInRound(id, 0)}"`));
    for (const text of texts) eventBytes += Buffer.byteLength(text);
    const body = eventsPerRequest === 1 ? texts.join() : `[${texts.join(",")}]`;
    const mediaType = eventsPerRequest === 1 ? "application/cloudevents+json" : "application/cloudevents-batch+json";
    const head = [
      "POST /v1/events HTTP/1.1",
      "host: 127.0.0.1",
      `authorization: Bearer ${token}`,
      `content-type: ${mediaType}`,
      `content-length: ${Buffer.byteLength(body)}`,
    ];
    const bytes = Buffer.from(`${head.join("\r\n")}\r\n\r\n${body}`);
    requests.push({ bytes, roundsAt: placesOf(bytes, `"id":"r${roundText(0)}`), ids: events.map(({ id }) => id) });
  }
  return {
    requests,
    eventBytesMean: Math.round(eventBytes / (count * eventsPerRequest)),
    bytesOf(index, round) {
      const request = requests[index];
      if (request === undefined) throw new Error(`the pool has no request ${index}`);
      for (const at of request.roundsAt) request.bytes.write(roundText(round), at, "latin1");
      return request.bytes;
    },
  };
}

/** Where the digits of each round number begin. */
function placesOf(bytes: Buffer, mark: string): number[] {
  const places: number[] = [];
  for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, at + 1)) {
    places.push(at + mark.length - ROUND_DIGITS);
  }
  return places;
}
