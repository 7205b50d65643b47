/** Meters that come while usage flows: each counts everything from its beginning, what was there before it by a backfill. */
import { applyMeters } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";

/** Patiently: the console, its store or the log may be away at the moment. */
const APPLY_MAX_MS = 600_000;

/** Adds meters to those of the file; each sums up the tokens of a model, as `tokens` does. */
export class LateMeters {
  /** Keys of the added meters: the oracle has the totals of each. */
  readonly keys: string[] = [];
  readonly #urls: readonly string[];
  readonly #token: string;
  readonly #metersFile: string;

  constructor(input: { urls: readonly string[]; token: string; metersFile: string }) {
    this.#urls = input.urls;
    this.#token = input.token;
    this.#metersFile = input.metersFile;
  }

  /** Resolves when one more meter is activated on every partition. */
  async add(): Promise<void> {
    this.keys.push(`late${this.keys.length}`);
    const file = this.#metersFile + this.keys.map(meterText).join("");
    let attempt = 0;
    await until(
      async () => {
        attempt += 1;
        const url = this.#urls[attempt % this.#urls.length] ?? "";
        await applyMeters({ url, token: this.#token }, file);
        return true;
      },
      { timeoutMs: APPLY_MAX_MS, what: "a late meter is activated" },
    );
  }
}

function meterText(key: string): string {
  return `  - { key: ${key}, eventType: llm.request, aggregation: sum, value: /tokens, dimensions: { model: /model }, unit: tokens, from: 2000-01-01T00:00:00Z }\n`;
}
