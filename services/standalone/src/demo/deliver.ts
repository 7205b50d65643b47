import { pause } from "@tallyhouse/runtime";
import { cloudEventOf, type DeliveryPlan, type DemoEvent } from "./workload.ts";

const EVENTS_PER_REQUEST = 100;
const REQUESTS_AT_ONCE = 8;
/** Attempts of one request before the demo gives up: with 250 ms between them, half a minute of refusals. */
const ATTEMPTS_MAX = 120;
const RETRY_DELAY_MS = 250;

/**
 * Sends a plan over HTTP: the deliveries, eight requests at once, then the conflicts, when every original has its 202.
 * Unanswered and refused (429, 503) requests are sent again: equal ids count once.
 * @throws {Error} with the answer, when a request is refused for good or an event is rejected.
 */
export async function deliver(
  plan: DeliveryPlan,
  target: { url: string; token: string; onProgress(sent: number): void },
): Promise<void> {
  let sent = 0;
  for (const phase of [plan.deliveries, plan.conflicts]) {
    const batches: (readonly DemoEvent[])[] = [];
    for (let i = 0; i < phase.length; i += EVENTS_PER_REQUEST) batches.push(phase.slice(i, i + EVENTS_PER_REQUEST));
    const next = batches.values();
    const lane = async (): Promise<void> => {
      for (const batch of next) {
        await post(batch, target);
        sent += batch.length;
        target.onProgress(sent);
      }
    };
    await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, lane));
  }
}

async function post(batch: readonly DemoEvent[], target: { url: string; token: string }): Promise<void> {
  const body = JSON.stringify(batch.map(cloudEventOf));
  for (let attempt = 1; ; attempt += 1) {
    const answer = await fetch(`${target.url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${target.token}`, "content-type": "application/cloudevents-batch+json" },
      body,
    }).catch((error: unknown) => (attempt < ATTEMPTS_MAX ? null : Promise.reject(error)));
    const text = answer === null ? "" : await answer.text();
    if (answer?.status === 202) {
      const { rejected } = JSON.parse(text) as { rejected: number };
      if (rejected > 0) throw new Error(`${rejected} events were rejected: ${text.slice(0, 2_000)}`);
      return;
    }
    const isPassing = answer === null || answer.status === 503 || answer.status === 429;
    if (!isPassing || attempt >= ATTEMPTS_MAX)
      throw new Error(`events refused: ${answer?.status ?? "no answer"} ${text.slice(0, 2_000)}`);
    await pause(RETRY_DELAY_MS);
  }
}
