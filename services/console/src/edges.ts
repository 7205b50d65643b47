/** Edges of a total that are shorter than a 15-minute window, folded from raw usage events by the aggregator's own rule. */
import {
  type AnalyticsStore,
  assert,
  ceilTo,
  compileMeter,
  floorTo,
  isJsonObject,
  type Mode,
  parseJson,
  type UsageEvent,
  WINDOW_MS,
} from "@tallyhouse/domain";
import { type MeterDefinition, placeOf } from "./meter-definitions.ts";
import { joinParts, type Part } from "./part.ts";

/** Usage events of both edges together that one question may fold: some 50 MB of payloads at their usual size. */
export const EDGE_EVENTS_MAX = 100_000;

/** A stretch `[fromAt, toAt)` inside one 15-minute window. */
export interface Edge {
  readonly fromAt: number;
  readonly toAt: number;
}

/** A range as whole windows (none when `wholeFromAt` is not before `wholeToAt`) and what is left of them at both ends. */
export function edgesOf(range: Edge): { wholeFromAt: number; wholeToAt: number; edges: readonly Edge[] } {
  const wholeFromAt = ceilTo(range.fromAt, WINDOW_MS);
  const wholeToAt = floorTo(range.toAt, WINDOW_MS);
  if (wholeFromAt > wholeToAt) return { wholeFromAt, wholeToAt, edges: [range] };
  const edges = [
    { fromAt: range.fromAt, toAt: wholeFromAt },
    { fromAt: wholeToAt, toAt: range.toAt },
  ].filter(({ fromAt, toAt }) => fromAt < toAt);
  return { wholeFromAt, wholeToAt, edges };
}

interface EdgeRow {
  readonly at: string;
  readonly stream: string;
  readonly partition: string;
  readonly offset: string;
  readonly payload: string;
}

/** The part of one group. `group` holds the values of `groupBy`, in its order. */
export interface GroupPart {
  readonly group: readonly string[];
  readonly part: Part;
}

/**
 * Folds the edges of one customer. The same code as the aggregator's fold decides what a usage event contributes, and only
 * usage events behind the meter's activation count, so that edges and whole windows add up to what windows alone would say.
 * @returns null when the edges hold more than {@link EDGE_EVENTS_MAX} usage events.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function foldEdges(
  analytics: AnalyticsStore,
  input: {
    readonly mode: Mode;
    readonly customer: string;
    readonly definition: MeterDefinition;
    readonly groupBy: readonly string[];
    readonly edges: readonly Edge[];
  },
): Promise<readonly GroupPart[] | null> {
  const { definition, groupBy } = input;
  const dimensions = Object.keys(definition.version.rule.dimensions);
  const positions = groupBy.map((name) => dimensions.indexOf(name));
  const fold = new Map<string, GroupPart>();
  const contribute = contributor(input);
  let roomFor = EDGE_EVENTS_MAX;
  for (const edge of input.edges) {
    const rows = await selectEdge(analytics, { ...input, ...edge, rowsMax: roomFor + 1 });
    if (rows.length > roomFor) return null;
    roomFor -= rows.length;
    for (const row of rows) {
      const contribution = contribute(row);
      if (contribution === null) continue;
      const group = positions.map((position) => contribution.dims[position] ?? "");
      const key = JSON.stringify(group);
      const known = fold.get(key);
      const { part } = contribution;
      const joined = known === undefined ? part : joinParts(definition.version.rule.aggregation, known.part, part);
      fold.set(key, { group, part: joined });
    }
  }
  return [...fold.values()];
}

/** What one raw row adds to the meter; null for nothing. */
function contributor(input: {
  readonly mode: Mode;
  readonly customer: string;
  readonly definition: MeterDefinition;
}): (row: EdgeRow) => { readonly dims: readonly string[]; readonly part: Part } | null {
  const { mode, customer, definition } = input;
  const meter = compileMeter(definition.version);
  const template: UsageEvent = {
    mode,
    customer,
    source: "",
    id: "",
    type: definition.version.rule.eventType,
    occurredAt: null,
    isStamped: false,
    decidedAt: null,
    data: {},
  };
  return (row) => {
    const activatedAt = definition.activatedOffsets.get(placeOf(Number(row.stream), Number(row.partition)));
    const offset = BigInt(row.offset);
    if (activatedAt === undefined || offset < activatedAt || Number(row.at) < meter.fromAt) return null;
    const data = parseJson(row.payload);
    assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${row.offset}`);
    const contribution = meter.contributionOf({ ...template, occurredAt: Number(row.at), data });
    assert(contribution.kind !== "invalid", `a counted usage event that its meter cannot read: offset ${row.offset}`);
    if (contribution.kind === "none") return null;
    const newest = [BigInt(row.at), BigInt(row.stream), BigInt(row.partition), offset];
    return { dims: contribution.dims, part: { quantity: contribution.quantity, newest } };
  };
}

/** Counted usage events of one customer and type; the condition reaches the primary key of raw_events through the view. */
function selectEdge(
  analytics: AnalyticsStore,
  input: Edge & {
    readonly mode: Mode;
    readonly customer: string;
    readonly definition: MeterDefinition;
    readonly rowsMax: number;
  },
): Promise<EdgeRow[]> {
  return analytics.select<EdgeRow>(
    `SELECT toString(toUnixTimestamp64Milli(occurredAt)) AS at, toString(stream) AS stream,
       toString(logPartition) AS partition, toString(logOffset) AS offset, payload
     FROM counted_events
     WHERE mode = {mode:String} AND customer = {customer:String} AND type = {type:String}
       AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')
       AND occurredAt < fromUnixTimestamp64Milli({toAt:Int64}, 'UTC')
     LIMIT {rowsMax:UInt32}`,
    {
      mode: input.mode,
      customer: input.customer,
      type: input.definition.version.rule.eventType,
      fromAt: input.fromAt,
      toAt: input.toAt,
      rowsMax: input.rowsMax,
    },
  );
}
