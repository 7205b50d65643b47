/** Usage of one meter version, exactly: whole windows from the rollups, the rest from counted usage events, joined. */
import { type Aggregation, type AnalyticsStore, assert, DAY_MS, TallyhouseError } from "@tallyhouse/domain";
import { type CountedUsage, visitCountedUsage } from "./counted-events.ts";
import { compileFilter, edgesOf, type Refusal, type UsageGroup, type UsageQuestion } from "./question.ts";
import {
  type CorrectedWindows,
  HASHES_PER_QUERY_MAX,
  type RollupQuestion,
  type RollupRow,
  selectCorrectedWindows,
  selectRollups,
} from "./rollup-query.ts";
import { quantityOfDecimal, Tally } from "./tally.ts";
import { bucketOf } from "./zone.ts";

/** Raw usage events are kept 400 days after their booking; ten of them for a watermark that lags. */
const RAW_KEPT_MS = 390 * DAY_MS;
/** Tries to read one and the same set of hashes with several statements, while usage keeps coming. */
const STABLE_TRIES_MAX = 5;

/** In order of start and group, or why not. */
export type UsageReading =
  | { readonly kind: "groups"; readonly groups: readonly UsageGroup[] }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * One entry per bucket and group in which usage still counts; a bucket or group whose usage events were all voided has none, as
 * if they had never been. In order of start, then group. With a cut that may be read (`readSeal`) the answer is the same for ever.
 *
 * Usage events come first and whole windows after them, without the windows that were read one by one. A void that lands in
 * between belongs to a window that is read as it was before: such an answer holds everything booked before the watermark, and
 * some of what came later.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readUsageGroups(analytics: AnalyticsStore, question: UsageQuestion): Promise<UsageReading> {
  const { mode, customer, definition, where = {}, groupBy, cutAt } = question;
  const { version } = definition;
  const { dimensions } = version.rule;
  const { wholeFromAt, wholeToAt, edges } = edgesOf(question);
  assert(edges.length === 0 || customer !== null, "edges are those of one customer");
  const passes = compileFilter(definition, where);
  const range = { mode, customer, version, where, fromAt: wholeFromAt, toAt: wholeToAt, cutAt };
  const isWhole = wholeFromAt < wholeToAt;
  const without = isWhole ? await correctedWindows(analytics, range) : [];
  if (without === null) return refused("events");
  if (needsExpired(question, { edges, without })) return refused("expired");
  const rows = new UsageRows(question);
  const positions = groupBy.map((name) => Object.keys(dimensions).indexOf(name));
  const isComplete = await visitCountedUsage(
    analytics,
    {
      ...question,
      edges: customer === null ? null : { customer, spans: edges },
      windows: without,
    },
    ({ occurredAt, dims, part }: CountedUsage) => {
      if (!passes(dims)) return;
      const group = positions.map((position) => dims[position] ?? "");
      rows.at(occurredAt, group).add(part);
    },
  );
  if (!isComplete) return refused("events");
  if (isWhole) {
    const { window, zone, rowsMax } = question;
    const whole = { ...range, groupBy, window, zone, without, rowsMax: rowsMax + 1 };
    for (const row of await selectWhole(analytics, whole, rows.hashes())) {
      const tally = rows.at(Number(row.firstWindow) * 1_000, row.groupValues);
      addRollups(tally, row);
    }
  }
  const groups = rows.sorted();
  return groups.length > question.rowsMax ? refused("rows") : { kind: "groups", groups };
}

/** Only sum and count survive a void as differences. */
export async function correctedWindows(
  analytics: AnalyticsStore,
  range: Parameters<typeof selectCorrectedWindows>[1],
): Promise<readonly CorrectedWindows[] | null> {
  const { aggregation } = range.version.rule;
  return aggregation === "sum" || aggregation === "count" ? [] : selectCorrectedWindows(analytics, range);
}

/** Whether raw usage events would be read that retention may have removed: a figure without them would be too small. */
export function needsExpired(
  { watermarkAt }: Pick<UsageQuestion, "watermarkAt">,
  read: { readonly edges: readonly { readonly fromAt: number }[]; readonly without: readonly CorrectedWindows[] },
): boolean {
  if (watermarkAt === null) return false;
  const starts = [
    ...read.edges.map(({ fromAt }) => fromAt),
    ...read.without.map(({ starts: [first = 0] }) => first * 1_000),
  ];
  return starts.some((at) => at < watermarkAt - RAW_KEPT_MS);
}

function refused(kind: Refusal["kind"]): UsageReading {
  return { kind: "refused", refusal: { kind } };
}

/** Adds whole windows to a tally that may hold usage events already. */
export function addRollups(tally: Tally, row: RollupRow): void {
  tally.add({
    quantity: quantityOfDecimal(row.quantity),
    newest: row.newest.map((text) => BigInt(text)),
    hash: null,
  });
  tally.forget(row.known);
}

/** The rows of an answer while they grow. */
class UsageRows {
  readonly #question: UsageQuestion;
  readonly #aggregation: Aggregation;
  readonly #rows = new Map<string, { startAt: number; endAt: number; group: readonly string[]; tally: Tally }>();

  constructor(question: UsageQuestion) {
    this.#question = question;
    this.#aggregation = question.definition.version.rule.aggregation;
  }

  /** The row of an instant and group. */
  at(at: number, group: readonly string[]): Tally {
    const { window, zone, fromAt, toAt } = this.#question;
    const { startAt, endAt } = window === "total" ? { startAt: fromAt, endAt: toAt } : bucketOf(zone, window, at);
    const key = JSON.stringify([startAt, ...group]);
    let row = this.#rows.get(key);
    if (row === undefined) {
      const tally = new Tally(this.#aggregation);
      row = { startAt: Math.max(startAt, fromAt), endAt: Math.min(endAt, toAt), group, tally };
      this.#rows.set(key, row);
    }
    return row.tally;
  }

  hashes(): readonly string[] {
    const all = new Set<string>();
    for (const { tally } of this.#rows.values()) for (const hash of tally.hashes) all.add(hash);
    return [...all];
  }

  sorted(): UsageGroup[] {
    return [...this.#rows.values()]
      .map(({ startAt, endAt, group, tally }) => ({ startAt, endAt, group, quantity: tally.quantity }))
      .sort((a, b) => a.startAt - b.startAt || compareTexts(a.group, b.group));
  }
}

/** In the order of code units, position by position. */
export function compareTexts(a: readonly string[], b: readonly string[]): number {
  for (const [index, text] of a.entries()) {
    const other = b[index] ?? "";
    if (text !== other) return text < other ? -1 : 1;
  }
  return 0;
}

/**
 * Whole windows, and which of the hashes are in each row's number. Hashes beyond one statement are asked in several, which must
 * have seen one set: it only grows, so equal numbers in all of them say so. One void or one new value in between costs a try.
 */
export async function selectWhole(
  analytics: AnalyticsStore,
  question: Omit<RollupQuestion, "hashes">,
  hashes: readonly string[],
): Promise<readonly RollupRow[]> {
  for (let tries = 0; tries < STABLE_TRIES_MAX; tries += 1) {
    const first = await selectRollups(analytics, { ...question, hashes: hashes.slice(0, HASHES_PER_QUERY_MAX) });
    const known = new Map(first.map((row) => [keyOf(row), { ...row, known: [...row.known] }]));
    let isStable = true;
    for (let from = HASHES_PER_QUERY_MAX; isStable && from < hashes.length; from += HASHES_PER_QUERY_MAX) {
      const chunk = hashes.slice(from, from + HASHES_PER_QUERY_MAX);
      const rows = await selectRollups(analytics, { ...question, hashes: chunk });
      isStable = rows.length === first.length;
      for (const row of rows) {
        const seen = known.get(keyOf(row));
        if (seen?.quantity === row.quantity) seen.known.push(...row.known);
        else isStable = false;
      }
    }
    if (isStable) return [...known.values()];
  }
  throw new TallyhouseError({
    code: "STORE_UNAVAILABLE",
    action: "retry",
    message: `the values of meter ${question.version.meter} grew during ${STABLE_TRIES_MAX} readings: ask again, or as known at a cut`,
  });
}

function keyOf({ firstWindow, groupValues }: RollupRow): string {
  return JSON.stringify([firstWindow, ...groupValues]);
}
