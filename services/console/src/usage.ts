/** Answers questions about usage, exactly, with the watermark the figures were read at. */
import { type AnalyticsStore, type ControlStore, formatInstant, formatQuantity, type Mode } from "@tallyhouse/domain";
import { EDGE_EVENTS_MAX, edgesOf, foldEdges, type GroupPart } from "./edges.ts";
import { chooseDefinition, type MeterDefinition, readDefinitions } from "./meter-definitions.ts";
import { joinParts, quantityOfDecimal } from "./part.ts";
import { type Problem, queryInvalid } from "./problem.ts";
import { QUANTITY_SQL, type RollupRow, selectRollups } from "./rollup-query.ts";
import { type CustomersRequest, USAGE_LIMITS, type UsageRequest } from "./usage-request.ts";
import { readWatermark } from "./watermark.ts";
import { bucketOf, formatLocal, type UsageWindow } from "./zone.ts";

/** What a usage question is answered from. */
export interface UsagePorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly stream: { readonly streamId: number; readonly partitionCount: number };
}

/** One row: the quantity of exactly the usage in `[start, end)`, both cut to the range that was asked for. */
export interface UsageRow {
  readonly start: string;
  readonly end: string;
  /** Dimension name → value; `""` where the usage event did not say. Empty without groupBy. */
  readonly group: Readonly<Record<string, string>>;
  /** Exact decimal text. */
  readonly quantity: string;
}

export interface UsageAnswer {
  readonly customer: string | null;
  readonly meter: string;
  readonly version: number;
  readonly unit: string;
  readonly window: UsageWindow;
  readonly tz: string;
  /** Everything the log received before this instant is in the figures; null until every partition reported once. */
  readonly asOf: string | null;
  readonly data: readonly UsageRow[];
}

export interface CustomersAnswer {
  readonly meter: string;
  readonly version: number;
  readonly unit: string;
  readonly start: string;
  readonly end: string;
  readonly asOf: string | null;
  /** Largest quantity first, equal ones by name. */
  readonly data: readonly { readonly customer: string; readonly quantity: string }[];
}

export type Reading<Answer> =
  | { readonly kind: "answer"; readonly answer: Answer }
  | { readonly kind: "problem"; readonly problem: Problem };

/**
 * Usage of one meter by one customer (or by all together, which only the page asks for).
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readUsage(request: UsageRequest, ports: UsagePorts): Promise<Reading<UsageAnswer>> {
  const definition = await findDefinition(request, ports);
  if (definition === null) return meterUnknown(request);
  const { rule, version } = definition.version;
  const dimensions = Object.keys(rule.dimensions);
  const unknown = request.groupBy.filter((name) => !dimensions.includes(name));
  if (unknown.length > 0) return dimensionsUnknown(unknown, dimensions);
  // The watermark first: read after the figures, it could vouch for usage that they do not hold yet (breaks G7).
  const watermarkAt = await readWatermark(ports.analytics, ports.stream);
  const rows =
    request.window === "total"
      ? await readTotal(request, definition, ports.analytics)
      : await readBuckets({ ...request, window: request.window }, definition, ports.analytics);
  if (rows.kind === "problem") return rows;
  return {
    kind: "answer",
    answer: {
      customer: request.customer,
      meter: request.meter,
      version,
      unit: await readUnit(ports.control, definition),
      window: request.window,
      tz: request.zone.name,
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      data: rows.answer,
    },
  };
}

async function readBuckets(
  request: UsageRequest & { readonly window: Exclude<UsageWindow, "total"> },
  definition: MeterDefinition,
  analytics: AnalyticsStore,
): Promise<Reading<readonly UsageRow[]>> {
  const { window, zone, fromAt, toAt } = request;
  const { version } = definition;
  const found = await selectRollups(analytics, { ...request, version, rowsMax: USAGE_LIMITS.rowsMax + 1 });
  if (found.length > USAGE_LIMITS.rowsMax) return tooManyRows();
  const rows = found.map((row) => {
    const { startAt, endAt } = bucketOf(zone, window, Number(row.firstWindow) * 1_000);
    return { ...groupPartOf(row), startAt: Math.max(startAt, fromAt), endAt: Math.min(endAt, toAt) };
  });
  rows.sort((a, b) => a.startAt - b.startAt || compareTexts(a.group, b.group));
  return { kind: "answer", answer: rows.map((row) => rowOf(request, row)) };
}

async function readTotal(
  request: UsageRequest,
  definition: MeterDefinition,
  analytics: AnalyticsStore,
): Promise<Reading<readonly UsageRow[]>> {
  const { version } = definition;
  const { wholeFromAt, wholeToAt, edges } = edgesOf(request);
  const parts: GroupPart[] = [];
  if (wholeFromAt < wholeToAt) {
    const whole = { ...request, version, fromAt: wholeFromAt, toAt: wholeToAt, rowsMax: USAGE_LIMITS.rowsMax + 1 };
    parts.push(...(await selectRollups(analytics, whole)).map(groupPartOf));
  }
  if (edges.length > 0 && request.customer !== null) {
    const { mode, customer, groupBy } = request;
    const folded = await foldEdges(analytics, { mode, customer, groupBy, definition, edges });
    if (folded === null) return tooManyEdgeEvents();
    parts.push(...folded);
  }
  const groups = new Map<string, GroupPart>();
  for (const { group, part } of parts) {
    const key = JSON.stringify(group);
    const known = groups.get(key);
    groups.set(key, {
      group,
      part: known === undefined ? part : joinParts(version.rule.aggregation, known.part, part),
    });
  }
  if (groups.size > USAGE_LIMITS.rowsMax) return tooManyRows();
  const rows = [...groups.values()].sort((a, b) => compareTexts(a.group, b.group));
  const { fromAt: startAt, toAt: endAt } = request;
  // Nothing sums up to 0; but the smallest of nothing is no number, so min, max and latest have no row.
  const isZero = rows.length === 0 && request.groupBy.length === 0 && /^(sum|count)$/.test(version.rule.aggregation);
  if (isZero) rows.push({ group: [], part: { quantity: quantityOfDecimal("0"), newest: [] } });
  return { kind: "answer", answer: rows.map((row) => rowOf(request, { ...row, startAt, endAt })) };
}

/**
 * Customers by quantity, largest first.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readCustomers(request: CustomersRequest, ports: UsagePorts): Promise<Reading<CustomersAnswer>> {
  const definition = await findDefinition(request, ports);
  if (definition === null) return meterUnknown(request);
  const { rule, version } = definition.version;
  const watermarkAt = await readWatermark(ports.analytics, ports.stream);
  // Every customer's rows of the mode are looked at: the meter comes after the customer in the primary key.
  const rows = await ports.analytics.select<{ customer: string; quantity: string }>(
    `SELECT r.customer AS customer, ${QUANTITY_SQL[rule.aggregation]} AS quantity
     FROM rollup AS r FINAL
     WHERE r.mode = {mode:String} AND r.meter = {meter:String} AND r.meterVersion = {version:UInt16}
       AND r.windowStart >= toDateTime({fromSeconds:UInt32}, 'UTC')
       AND r.windowStart < toDateTime({toSeconds:UInt32}, 'UTC')
     GROUP BY customer
     HAVING sum(r.counted) > sum(r.voided)
     ORDER BY toDecimal128(quantity, 9) DESC, customer
     LIMIT {limit:UInt32}`,
    {
      mode: request.mode,
      meter: request.meter,
      version,
      fromSeconds: request.fromAt / 1_000,
      toSeconds: request.toAt / 1_000,
      limit: request.limit,
    },
  );
  return {
    kind: "answer",
    answer: {
      meter: request.meter,
      version,
      unit: await readUnit(ports.control, definition),
      start: formatInstant(request.fromAt),
      end: formatInstant(request.toAt),
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      data: rows.map(({ customer, quantity }) => ({ customer, quantity: formatQuantity(quantityOfDecimal(quantity)) })),
    },
  };
}

type Question = {
  readonly mode: Mode;
  readonly meter: string;
  readonly version: number | undefined;
  readonly toAt: number;
};

async function findDefinition(request: Question, ports: UsagePorts): Promise<MeterDefinition | null> {
  const { mode, meter, toAt, version: wanted } = request;
  return chooseDefinition(await readDefinitions(ports.analytics, ports.stream, { mode, meter }), { toAt, wanted });
}

/** The unit's text may change without a new version, so its newest wording stands in the control store. */
async function readUnit(control: ControlStore, { version }: MeterDefinition): Promise<string> {
  const [row] = await control.query<{ unit: string }>(
    "SELECT unit FROM meter_version WHERE mode = $1 AND key = $2 AND version = $3",
    [version.mode, version.meter, version.version],
  );
  return row?.unit ?? version.rule.unit;
}

function groupPartOf(row: RollupRow): GroupPart {
  return {
    group: row.groupValues,
    part: { quantity: quantityOfDecimal(row.quantity), newest: row.newest.map((text) => BigInt(text)) },
  };
}

function rowOf(request: UsageRequest, row: GroupPart & { readonly startAt: number; readonly endAt: number }): UsageRow {
  return {
    start: formatLocal(request.zone, row.startAt),
    end: formatLocal(request.zone, row.endAt),
    group: Object.fromEntries(request.groupBy.map((name, index) => [name, row.group[index] ?? ""])),
    quantity: formatQuantity(row.part.quantity),
  };
}

function compareTexts(a: readonly string[], b: readonly string[]): number {
  for (const [index, text] of a.entries()) {
    const other = b[index] ?? "";
    if (text !== other) return text < other ? -1 : 1;
  }
  return 0;
}

type Refusal = { readonly kind: "problem"; readonly problem: Problem };

function meterUnknown({ mode, meter, version }: Question): Refusal {
  const what = version === undefined ? `meter "${meter}"` : `version ${version} of meter "${meter}"`;
  const detail = `${what} is not active in mode ${mode}; GET /admin/v1/meters lists what exists`;
  return { kind: "problem", problem: { status: 404, code: "METER_UNKNOWN", detail } };
}

function dimensionsUnknown(unknown: readonly string[], declared: readonly string[]): Refusal {
  const exists = declared.length === 0 ? "the meter declares none" : `the meter declares ${declared.join(", ")}`;
  const rule = `names no dimension of the meter: ${unknown.join(", ")}; ${exists}`;
  return { kind: "problem", problem: queryInvalid([{ field: "groupBy", rule }]) };
}

function tooManyRows(): Refusal {
  const rule = `would give more than ${USAGE_LIMITS.rowsMax} rows: ask for a shorter range or a longer window`;
  return { kind: "problem", problem: queryInvalid([{ field: "window", rule }]) };
}

function tooManyEdgeEvents(): Refusal {
  const rule = `and to cut 15-minute windows that hold more than ${EDGE_EVENTS_MAX} usage events: use multiples of 15 minutes`;
  return { kind: "problem", problem: queryInvalid([{ field: "from", rule }]) };
}
