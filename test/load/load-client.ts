/**
 * The load client's own process, started by {@link startLoadClient}: sends prebuilt bodies over kept-alive connections, paced or as
 * fast as they are accepted, and repeats each until it is answered 202. Speaks with its parent over IPC.
 */
import process from "node:process";
import { pause } from "@tallyhouse/runtime";
import { LastingLane } from "./lasting-lane.ts";
import { LoadBodies, type LoadBody } from "./load-bodies.ts";
import type { LoadFigures, LoadSettings } from "./load-process.ts";
import { quantile, rounded } from "./options.ts";

/** Behind a refusal (429, 503) or a broken connection. */
const RETRY_PAUSE_MS = 50;
/** A body is repeated this often before the run has failed: a minute. */
const ATTEMPTS_MAX = 1_200;
/** Bodies beyond those that are out at once, so that none is overwritten while it is sent. */
const BODIES_PER_CONNECTION = 64;

const settings = JSON.parse(process.argv[2] ?? "") as LoadSettings;
const { url, token, seed, startAt, events, eventsPerRequest, connections, ratePerSecond, seconds } = settings;
const headOf = (bodyBytes: number): string =>
  [
    "POST /v1/events HTTP/1.1",
    `host: ${new URL(url).host}`,
    `authorization: Bearer ${token}`,
    "content-type: application/cloudevents-batch+json",
    `content-length: ${bodyBytes}`,
    "\r\n",
  ].join("\r\n");
const bodies = new LoadBodies({
  seed,
  bodies: connections * BODIES_PER_CONNECTION,
  eventsPerBody: eventsPerRequest,
  nowAt: startAt,
  headOf,
});
// Nobody is left to send for.
process.once("disconnect", () => process.exit());

const latenciesMs: number[] = [];
let accepted = 0;
let refusals = 0;
const cpuBefore = process.cpuUsage();
const startedAt = performance.now();
const endsAt = startedAt + seconds * 1_000;
/** Milliseconds between two requests; 0 sends as fast as they are accepted. */
const gapMs = ratePerSecond === 0 ? 0 : (eventsPerRequest * 1_000) / ratePerSecond;
let slot = 0;
const eventsMax = events === 0 ? Number.POSITIVE_INFINITY : events;

process.send?.({ kind: "started" });
await Promise.all(Array.from({ length: connections }, runLane));
const endedAt = performance.now();
const { user, system } = process.cpuUsage(cpuBefore);
latenciesMs.sort((a, b) => a - b);
const figures: LoadFigures = {
  ...bodies.taken,
  seconds: (endedAt - startedAt) / 1_000,
  requestP50Ms: rounded(quantile(latenciesMs, 0.5), 1),
  requestP99Ms: rounded(quantile(latenciesMs, 0.99), 1),
  refusals,
  cpuSeconds: rounded((user + system) / 1e6, 2),
};
process.send?.({ kind: "ended", figures }, () => process.disconnect());

async function runLane(): Promise<void> {
  const lane = new LastingLane(url);
  for (;;) {
    let dueAt = performance.now();
    if (gapMs > 0) {
      // A slot that is late keeps its time: what waits for a slow answer counts as slow, too.
      dueAt = startedAt + slot * gapMs;
      slot += 1;
      const waitMs = dueAt - performance.now();
      // time passes here: the rate of the load.
      if (waitMs > 0) await pause(waitMs);
    }
    if (Math.max(dueAt, performance.now()) >= endsAt || bodies.taken.events >= eventsMax) return lane.close();
    const body = bodies.take(Date.now());
    await sendUntilAccepted(lane, body);
    latenciesMs.push(performance.now() - dueAt);
    accepted += body.events;
    body.release();
  }
}

async function sendUntilAccepted(lane: LastingLane, { bytes }: LoadBody): Promise<void> {
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    const status = await lane.send(bytes);
    if (status === 202) return;
    if (status !== 0 && status !== 503 && status !== 429) throw new Error(`a request is refused: ${status}`);
    refusals += 1;
    // time passes here: a client's pause before it repeats.
    await pause(RETRY_PAUSE_MS);
  }
  throw new Error(`no request is accepted any more; ${accepted} usage events were`);
}
