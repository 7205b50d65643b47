/** What a demo sends and what it must add up to. */
import { formatInstant } from "@tallyhouse/domain";

/** One usage event to send, in CloudEvents form. Metered values are JSON integers below 2^53. */
export interface DemoEvent {
  readonly id: string;
  readonly source: string;
  readonly customer: string;
  readonly type: string;
  /** RFC 3339 text exactly as sent; may carry more digits than milliseconds. */
  readonly time: string;
  readonly data: Readonly<Record<string, string | number>>;
}

/** One exact total: an integer quantity of a customer, a meter and a UTC hour or day. */
export interface ExpectedTotal {
  readonly customer: string;
  readonly meter: string;
  readonly startAt: number;
  readonly quantity: bigint;
}

export interface Workload {
  readonly title: string;
  /** Text of the meters file to apply. */
  readonly metersFile: string;
  /** Each event once per line of the input; equal identities with equal content may stand in it. */
  readonly events: readonly DemoEvent[];
  readonly expected: readonly ExpectedTotal[];
  /** The span each expected total covers. */
  readonly span: "hour" | "day";
}

/** Everything to send for a workload, in order. */
export interface DeliveryPlan {
  readonly deliveries: readonly DemoEvent[];
  /** Same identities with other content; sent after their original was answered 202, so each must show as a conflict. */
  readonly conflicts: readonly DemoEvent[];
}

/** A small seeded generator of numbers in [0, 1): equal seeds give equal demos. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Repeats, duplicates, conflicts and shuffles. Shares are of the number of events. Deterministic for a seed. */
export function planDelivery(
  events: readonly DemoEvent[],
  options: { seed: number; copies: number; duplicateShare: number; conflictShare: number },
): DeliveryPlan {
  const random = seededRandom(options.seed);
  const pick = (): DemoEvent => events[Math.floor(random() * events.length)] as DemoEvent;
  const deliveries = Array.from({ length: options.copies }, () => events).flat();
  for (let i = 0; i < Math.round(events.length * options.duplicateShare); i += 1) deliveries.push(pick());
  for (let i = deliveries.length - 1; i > 0; i -= 1) {
    const other = Math.floor(random() * (i + 1));
    [deliveries[i], deliveries[other]] = [deliveries[other] as DemoEvent, deliveries[i] as DemoEvent];
  }
  const conflicts = Array.from({ length: Math.round(events.length * options.conflictShare) }, () => changed(pick()));
  return { deliveries, conflicts };
}

/** The same identity claiming one unit more of everything. */
function changed(event: DemoEvent): DemoEvent {
  const entries = Object.entries(event.data).map(
    ([name, value]) => [name, typeof value === "number" ? value + 1 : value] as const,
  );
  return { ...event, data: { ...Object.fromEntries(entries), changed: "yes" } };
}

/** The event as it goes over HTTP. */
export function cloudEventOf(event: DemoEvent): object {
  const { id, source, customer, type, time, data } = event;
  return { specversion: "1.0", id, source, subject: customer, type, time, datacontenttype: "application/json", data };
}

/** `2026-11-20T00:00:00Z` for the start of a total. */
export function labelOf(total: { readonly startAt: number }): string {
  return formatInstant(total.startAt);
}
