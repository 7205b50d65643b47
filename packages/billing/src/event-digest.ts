/** The digest of the usage events behind one item of a statement: what docs/statements.md calls the events digest. */
import { createHash, type Hash } from "node:crypto";
import { assert, canonicalJson, formatInstant } from "@tallyhouse/domain";
import type { RatedItem } from "@tallyhouse/pricing";
import type { WalkedEvent, WalkedPart } from "@tallyhouse/usage";

/** First line of the text that is digested. */
const HEAD = "tallyhouse.events/1\n";

/** A usage event as digests and exports write it: its identity, its instants, its place in the log, and what it gave to the meter. */
export type EventTuple = readonly [
  source: string,
  id: string,
  occurredAt: string,
  bookedAt: string,
  place: string,
  dims: readonly string[],
  value: string,
];

/** Instants are RFC 3339; the place is `stream/partition/offset`. */
export function eventTuple(event: WalkedEvent, { dims, value }: WalkedPart): EventTuple {
  const { source, id, occurredAt, bookedAt, stream, partition, offset } = event;
  return [
    source,
    id,
    formatInstant(occurredAt),
    formatInstant(bookedAt),
    `${stream}/${partition}/${offset}`,
    dims,
    value,
  ];
}

/** The digest of one item while its usage events go by, in the order of a walk: equal events give equal digests. */
export class EventsDigest {
  #count = 0;
  readonly #hash: Hash = createHash("sha256").update(HEAD);

  /** How many were added. */
  get count(): number {
    return this.#count;
  }

  /** @returns the line that was digested, without its end: the export writes the same text. */
  add(tuple: EventTuple): string {
    const line = canonicalJson(tuple);
    this.#hash.update(`${line}\n`);
    this.#count += 1;
    return line;
  }

  /** SHA-256 in hex of everything added so far. */
  hex(): string {
    return this.#hash.copy().digest("hex");
  }
}

/** An item with the names of its meter's dimensions, in the order of dims. */
export interface MeteredItem extends Pick<RatedItem, "key" | "meter" | "meterVersion" | "where"> {
  readonly dimensions: readonly string[];
}

/**
 * Compiles which item a part of a usage event belongs to; null: to none, so that no line holds it. Items of one meter never
 * overlap (the plans file is refused otherwise), so there is one at most.
 */
export function compileItemOf<Item extends MeteredItem>(items: readonly Item[]): (part: WalkedPart) => Item | null {
  const byMeter = new Map<string, { item: Item; conditions: { position: number; values: ReadonlySet<string> }[] }[]>();
  for (const item of items) {
    const conditions = Object.entries(item.where).map(([name, values]) => {
      const position = item.dimensions.indexOf(name);
      assert(position !== -1, `item ${item.key}: meter ${item.meter} has no dimension ${name}`);
      return { position, values: new Set(values) };
    });
    const key = `${item.meter}@${item.meterVersion}`;
    byMeter.set(key, [...(byMeter.get(key) ?? []), { item, conditions }]);
  }
  return ({ meter, version, dims }) =>
    byMeter
      .get(`${meter}@${version}`)
      ?.find(({ conditions }) => conditions.every(({ position, values }) => values.has(dims[position] ?? "")))?.item ??
    null;
}
