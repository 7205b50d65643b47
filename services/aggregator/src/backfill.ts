/** Usage from before a meter's activation, counted in a lane of its own, beside the live fold. */
import {
  assert,
  compileMeter,
  isJsonObject,
  parseJson,
  type StreamIdentity,
  uniqueHashOf,
  windowStartOf,
} from "@tallyhouse/domain";
import type { BackfillStore, LaneTable, PageEnd, PendingBackfill, StoredUsage } from "./backfill-store.ts";
import { type ActiveMeter, meterLabel } from "./meter-set.ts";
import { BACKFILL_LANE, RollupBook } from "./rollup-book.ts";
import { bookedStartOf, type Row } from "./tables.ts";

/** Usage events of one page: 65,536 bytes each at the very most, so at most 256 MiB, and usually 1 MB. */
const PAGE_ROWS = 4_000;
/** Rows of one insert. */
const INSERT_ROWS = 10_000;

/**
 * Counts what stands in front of one activation, stores it, and then says so in `backfills`.
 *
 * The `backfills` row last: earlier, a crash in between would leave usage uncounted for ever. In this order the whole is done again,
 * and writes the same rows: they are a function of the log below the activation, whose keys and version name the activation.
 * @param isWanted looked at between any two pages; when it says no, nothing is lost: whoever owns the partition begins again.
 * @returns the usage events that were read; null when it was stopped.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); any part may be stored.
 */
export async function backfill(
  pending: PendingBackfill,
  ports: { readonly store: BackfillStore; readonly stream: StreamIdentity; readonly isWanted: () => boolean },
): Promise<number | null> {
  const { store, stream, isWanted } = ports;
  let events = 0;
  for (const slice of await store.readSlices(pending)) {
    const fold = new BackfillFold(pending, stream);
    for (const day of slice.days) {
      let after: PageEnd | null = null;
      do {
        if (!isWanted()) return null;
        const page: readonly StoredUsage[] = await store.readPage({ pending, slice, day, after, rowsMax: PAGE_ROWS });
        // A copy of a row, of a flush that was sent twice, follows it directly.
        const found = page.filter(({ offset }, at) => offset !== page[at - 1]?.offset);
        for (const usage of found) fold.add(usage);
        events += found.length;
        after = page.length < PAGE_ROWS ? null : (page.at(-1) ?? null);
      } while (after !== null);
    }
    for (const { table, rows } of fold.takeRows()) {
      for (let from = 0; from < rows.length; from += INSERT_ROWS)
        await store.insertLane(table, rows.slice(from, from + INSERT_ROWS));
    }
  }
  await store.recordBackfill(pending);
  return events;
}

/** One slice's rows of lane 1: `bookedStart` is the activation's booking window, `ver` its offset. */
class BackfillFold {
  readonly #pending: PendingBackfill;
  readonly #stream: StreamIdentity;
  readonly #meter: ActiveMeter;
  readonly #bookedStart: number;
  readonly #book = new RollupBook();
  readonly #unique = new Map<string, Row>();

  constructor(pending: PendingBackfill, stream: StreamIdentity) {
    const { version, activatedAt } = pending;
    this.#pending = pending;
    this.#stream = stream;
    this.#meter = { compiled: compileMeter(version), label: meterLabel(version), untilAt: Infinity };
    this.#bookedStart = bookedStartOf(activatedAt, stream);
  }

  add({ customer, occurredAt, offset, payload }: StoredUsage): void {
    const { version } = this.#meter.compiled;
    const data = parseJson(payload);
    assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${offset}`);
    const event = {
      mode: version.mode,
      customer,
      source: "",
      id: "",
      type: version.rule.eventType,
      isStamped: false,
      decidedAt: null,
    };
    const contribution = this.#meter.compiled.contributionOf({ ...event, occurredAt, data });
    // It was counted before the meter existed, so a value that the meter cannot read is no mistake of the sender.
    if (contribution.kind !== "quantity") return;
    const { dims, quantity, uniqueText } = contribution;
    const windowStart = windowStartOf(occurredAt) / 1_000;
    const bookedStart = this.#bookedStart;
    const place = { occurredAt, windowStart, bookedStart, offset };
    this.#book.add({ meter: this.#meter, customer, dims, quantity, uniqueText: null, ...place });
    if (uniqueText === null) return;
    const row = [
      version.mode,
      customer,
      version.meter,
      version.version,
      windowStart,
      dims,
      uniqueHashOf(uniqueText).toString(),
      bookedStart,
    ];
    this.#unique.set(JSON.stringify(row), row);
  }

  takeRows(): readonly { readonly table: LaneTable; readonly rows: readonly Row[] }[] {
    const { partition, activatedOffset: ver } = this.#pending;
    const rows = this.#book.takeRows({ stream: this.#stream.streamId, partition, ver, lane: BACKFILL_LANE });
    return [
      { table: "rollup", rows },
      { table: "rollup_uniq", rows: [...this.#unique.values()] },
    ];
  }
}
