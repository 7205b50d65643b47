/** Usage from before a meter's activation, counted in a lane of its own, beside the live fold. */
import { assert, compileMeter, isJsonObject, parseJson, type StreamIdentity, windowStartOf } from "@tallyhouse/domain";
import type {
  BackfillSlice,
  BackfillSource,
  BackfillStore,
  LaneTable,
  PageEnd,
  PendingBackfill,
  StoredUsage,
} from "./backfill-store.ts";
import { type ActiveMeter, meterLabel } from "./meter-set.ts";
import { BACKFILL_LANE, RollupBook } from "./rollup-book.ts";
import { bookedStartOf, type Row } from "./tables.ts";

/** Usage events of one page: 65,536 bytes each at the very most, so at most 256 MiB, and usually 1 MB. */
const PAGE_ROWS = 4_000;
/** Rows of one insert, and of one turn: making all rows of a slice at once would hold up the live fold for a second. */
const INSERT_ROWS = 10_000;

/** What a backfill runs on. */
export interface BackfillPorts {
  readonly store: BackfillStore;
  readonly stream: StreamIdentity;
  /** Looked at between any two pages; when it says no, nothing is lost: whoever owns the partition begins again. */
  readonly isWanted: () => boolean;
}

/**
 * Counts what stands in front of one activation and stores it. Done again, it writes the same rows: they are a function of the log
 * below the activation, whose keys and version name the activation.
 * @returns the usage events that were read; null when it was stopped.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); any part may be stored.
 */
export async function backfill(pending: PendingBackfill, ports: BackfillPorts): Promise<number | null> {
  const { store } = ports;
  let events = 0;
  for (const source of pending.sources) {
    for (const slice of await store.readSlices({ pending, source })) {
      const fold = new BackfillFold(pending, { source, stream: ports.stream });
      const found = await foldSlice(fold, { pending, source, slice }, ports);
      if (found === null) return null;
      events += found;
      for (const { table, rows } of fold.takeRows()) await store.insertLane(table, rows);
    }
  }
  return events;
}

/** Adds a slice's usage events, day by day and page by page; null when it was stopped. */
async function foldSlice(
  fold: BackfillFold,
  query: { readonly pending: PendingBackfill; readonly source: BackfillSource; readonly slice: BackfillSlice },
  { store, isWanted }: BackfillPorts,
): Promise<number | null> {
  let events = 0;
  for (const day of query.slice.days) {
    let after: PageEnd | null = null;
    do {
      if (!isWanted()) return null;
      const page: readonly StoredUsage[] = await store.readPage({ ...query, day, after, rowsMax: PAGE_ROWS });
      // A copy of a row, of a flush that was sent twice, follows it directly.
      const found = page.filter(({ offset }, at) => offset !== page[at - 1]?.offset);
      for (const usage of found) fold.add(usage);
      events += found.length;
      after = page.length < PAGE_ROWS ? null : (page.at(-1) ?? null);
    } while (after !== null);
  }
  return events;
}

/** One slice's rows of lane 1. `bookedStart` is the activation's booking window: from there on a reader knows the usage. */
class BackfillFold {
  readonly #pending: PendingBackfill;
  readonly #source: BackfillSource;
  readonly #meter: ActiveMeter;
  readonly #bookedStart: number;
  readonly #book = new RollupBook();

  constructor(pending: PendingBackfill, place: { source: BackfillSource; stream: StreamIdentity }) {
    const { version, activatedAt } = pending;
    this.#pending = pending;
    this.#source = place.source;
    // Without the version's end: one is valid only where it lies ahead of everything that could be counted, and all this was.
    this.#meter = { compiled: compileMeter(version), label: meterLabel(version), untilAt: Number.POSITIVE_INFINITY };
    this.#bookedStart = bookedStartOf(activatedAt, place.stream);
  }

  add({ customer, occurredAt, offset, payload }: StoredUsage): void {
    const { mode, rule } = this.#meter.compiled.version;
    const data = parseJson(payload);
    assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${offset}`);
    const event = { mode, customer, source: "", id: "", type: rule.eventType, isStamped: false, decidedAt: null };
    const contribution = this.#meter.compiled.contributionOf({ ...event, occurredAt, data });
    // It was counted before the meter existed, so a value that the meter cannot read is no mistake of the sender.
    if (contribution.kind !== "quantity") return;
    const { dims, quantity, uniqueText } = contribution;
    this.#book.add({
      meter: this.#meter,
      customer,
      dims,
      quantity,
      uniqueText,
      occurredAt,
      windowStart: windowStartOf(occurredAt) / 1_000,
      bookedStart: this.#bookedStart,
      offset,
    });
  }

  /** Everything counted, a part at a time: nothing is added while it runs. */
  *takeRows(): Generator<{ readonly table: LaneTable; readonly rows: readonly Row[] }> {
    const { stream, ver } = this.#source;
    const { partition } = this.#pending;
    while (this.#book.dirtyCount > 0) {
      const place = { stream, partition, ver, lane: BACKFILL_LANE, rowsMax: INSERT_ROWS };
      yield { table: "rollup", rows: this.#book.takeRows(place) };
    }
    const uniques = this.#book.takeUniqueRows();
    for (let from = 0; from < uniques.length; from += INSERT_ROWS)
      yield { table: "rollup_uniq", rows: uniques.slice(from, from + INSERT_ROWS) };
  }
}
