/** A caller under faults: sends each identity until it is answered, and remembers what was sent and what was answered 202. */
import { pause } from "@tallyhouse/runtime";
import { cloudEventOf, type DemoEvent } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";

const EVENTS_PER_REQUEST = 20;
const REQUEST_TIMEOUT_MS = 10_000;

export interface LoadClient {
  /** Ids that left, whatever the answer. */
  readonly sent: ReadonlySet<string>;
  /** Ids answered 202: these must be counted. */
  readonly acknowledged: ReadonlySet<string>;
  /** Sends until the signal aborts or nothing is left; a batch without a 202 is set aside. */
  run(signal: AbortSignal): Promise<void>;
  /** Sends everything that was set aside, until it is answered 202. */
  resendUnanswered(): Promise<void>;
}

/** `lanes` requests at once, spread over the gateways; `restMs` between two requests of a lane. */
export function createLoadClient(input: {
  urls: readonly string[];
  token: string;
  events: readonly DemoEvent[];
  lanes: number;
  restMs?: number;
}): LoadClient {
  const { urls, events, token, restMs = 0 } = input;
  const sent = new Set<string>();
  const acknowledged = new Set<string>();
  const unanswered: (readonly DemoEvent[])[] = [];
  let next = 0;
  const take = (): readonly DemoEvent[] => {
    const batch = events.slice(next, next + EVENTS_PER_REQUEST);
    next += batch.length;
    return batch;
  };
  const post = async (url: string, batch: readonly DemoEvent[], signal?: AbortSignal): Promise<boolean> => {
    for (const event of batch) sent.add(event.id);
    const bound = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const answer = await fetch(`${url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/cloudevents-batch+json" },
      body: JSON.stringify(batch.map(cloudEventOf)),
      signal: signal === undefined ? bound : AbortSignal.any([signal, bound]),
    }).catch(() => null);
    if (answer?.status !== 202) return false;
    for (const event of batch) acknowledged.add(event.id);
    return true;
  };
  const isReady = async (url: string, signal: AbortSignal): Promise<boolean> =>
    (await fetch(`${url}/readyz`, { signal }).catch(() => null))?.ok === true;
  const runLane = async (url: string, signal: AbortSignal): Promise<void> => {
    while (!signal.aborted && next < events.length) {
      if (!(await isReady(url, signal))) {
        // time passes here: the client polls readiness, as a client outside would.
        await pause(25, signal);
        continue;
      }
      for (let batch = take(); batch.length > 0 && !signal.aborted; batch = take()) {
        if (!(await post(url, batch, signal))) {
          unanswered.push(batch);
          break;
        }
        // time passes here: the rate of the load.
        if (restMs > 0) await pause(restMs, signal);
      }
    }
  };
  return {
    sent,
    acknowledged,
    async run(signal) {
      await Promise.all(
        Array.from({ length: input.lanes }, (_, lane) => runLane(urls[lane % urls.length] ?? "", signal)),
      );
    },
    async resendUnanswered() {
      const [url = ""] = urls;
      for (const batch of unanswered) {
        await until(() => post(url, batch), { timeoutMs: 60_000, what: "a resend is answered 202" });
      }
    },
  };
}
