/** Voids and replacements of accepted usage events, through the console's admin API, while everything else goes on. */
import { pause } from "@tallyhouse/runtime";
import { seededRandom } from "@tallyhouse/standalone/demo";
import { SOURCE, type UsageSource } from "./usage-source.ts";

const PAUSE_MS = 500;
const REQUEST_TIMEOUT_MS = 10_000;
/** Asked for again at once: a correction counts once, however often it is asked for. */
const TWICE_SHARE = 0.2;
const REPLACE_SHARE = 0.5;

/** Corrects random usage events; each goes on until it is applied. */
export class ChaosCorrections {
  readonly asked = new Map<number, "void" | "replace">();
  /** Answers that should not be. */
  readonly refusals: string[] = [];
  readonly #input: {
    readonly urls: readonly string[];
    readonly token: string;
    readonly source: UsageSource;
    readonly seed: number;
    /** A usage event that may be corrected. */
    readonly pick: (random: () => number) => number | null;
  };

  constructor(input: {
    urls: readonly string[];
    token: string;
    source: UsageSource;
    seed: number;
    pick: (random: () => number) => number | null;
  }) {
    this.#input = input;
  }

  /** One after another until the signal aborts. A request without an answer is left to {@link ChaosCorrections.settle}. */
  async run(signal: AbortSignal): Promise<void> {
    const random = seededRandom(this.#input.seed);
    while (!signal.aborted) {
      // time passes here: the rate of corrections.
      await pause(PAUSE_MS, signal);
      const number = this.#input.pick(random);
      if (number === null || this.asked.has(number)) continue;
      const kind = random() < REPLACE_SHARE ? "replace" : "void";
      this.asked.set(number, kind);
      const requests = random() < TWICE_SHARE ? 2 : 1;
      await Promise.all(Array.from({ length: requests }, () => this.#ask(number, kind, random)));
    }
  }

  /** Asks until every correction is applied. */
  async settle(timeoutMs: number): Promise<void> {
    const endsAt = performance.now() + timeoutMs;
    const random = seededRandom(this.#input.seed);
    for (const [number, kind] of this.asked) {
      while (this.refusals.length === 0 && (await this.#ask(number, kind, random)) !== "applied") {
        if (performance.now() > endsAt) throw new Error(`the correction of ${number} is not applied in time`);
        // time passes here: polling.
        await pause(PAUSE_MS);
      }
    }
  }

  /** The state that the console answers with; null for an outage, or where the usage event is not counted yet. */
  async #ask(number: number, kind: "void" | "replace", random: () => number): Promise<string | null> {
    const { urls, token, source } = this.#input;
    const { id, customer } = source.usage(number);
    const url = `${urls[Math.floor(random() * urls.length)]}/admin/v1/events/${SOURCE}/${id}/${kind}`;
    const event = JSON.parse(source.replacementText(number)) as object;
    const answer = await fetch(url, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ customer, reason: "chaos", actor: "chaos", ...(kind === "void" ? {} : { event }) }),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    }).catch(() => null);
    if (answer === null) return null;
    const text = await answer.text().catch(() => "");
    if (answer.status === 400 || answer.status === 409) this.refusals.push(`${answer.status} ${text.slice(0, 500)}`);
    if (answer.status !== 200 && answer.status !== 202) return null;
    const { state } = JSON.parse(text) as { state: string };
    if (state === "refused") this.refusals.push(text.slice(0, 500));
    return state;
  }
}
