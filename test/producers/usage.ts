/** What the producers of this suite say: usage of whole tokens, so that a recount needs nothing but integers. */
import { formatInstant } from "@tallyhouse/domain";

/** One usage of one customer; two with equal customer, source and id are the same. */
export interface Usage {
  readonly customer: string;
  readonly source: string;
  readonly id: string;
  readonly tokens: number;
}

/** A record as a producer hands it to its client: one line of text each. */
export interface ProducedRecord {
  readonly key: string;
  readonly value: string;
}

const HOUR_MS = 3_600_000;
const MODELS = ["small", "large", "groß"] as const;
/** One instant for the whole run: the same usage from two producers must be equal. */
const OCCURRED_AT = formatInstant(Date.now() - HOUR_MS);

/** So many usages, numbered from 0, with token counts that no two sums of which agree by accident. */
export function usagesOf(customer: string, count: number, source = "test/producers"): Usage[] {
  return Array.from({ length: count }, (_, n) => ({
    customer,
    source,
    id: `${n}-é`,
    tokens: 1 + ((n * 7_919) % 1_000),
  }));
}

/** The usage as a CloudEvent. */
export function cloudEvent(usage: Usage, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const { customer, source, id, tokens } = usage;
  const data = { tokens, model: MODELS[tokens % MODELS.length] };
  return { specversion: "1.0", id, source, type: "llm.request", subject: customer, time: OCCURRED_AT, data, ...more };
}

/** The key that the log contract asks for, written as a producer without our code would write it. */
export function keyOf({ customer, source, id }: Usage, mode = "live"): string {
  return `${mode}/${customer}/${source}/${id}`;
}

/** Key and structured value. */
export function recordOf(usage: Usage): ProducedRecord {
  return { key: keyOf(usage), value: JSON.stringify(cloudEvent(usage)) };
}
