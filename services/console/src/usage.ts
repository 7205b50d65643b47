/** Answers questions about usage, exactly, with the watermark the figures were read at. */
import {
  type AnalyticsStore,
  type ControlStore,
  formatInstant,
  formatQuantity,
  type Mode,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import {
  chooseDefinition,
  cutOf,
  formatLocal,
  isBackfilling,
  type MeterDefinition,
  readCustomerTotals,
  readDefinitions,
  readUsageGroups,
  readWatermark,
  type Refusal,
  type SealedStream,
  type SealState,
  type UsageGroup,
  type UsageWindow,
} from "@tallyhouse/usage";
import { type Problem, queryInvalid } from "./problem.ts";
import { type CustomersRequest, USAGE_LIMITS, type UsageRequest } from "./usage-request.ts";

/** What a usage question is answered from. */
export interface UsagePorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly stream: SealedStream;
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
  /** There while usage in front of the meter's activation is still being counted: the figures grow. */
  readonly backfilling?: true;
  readonly data: readonly UsageRow[];
}

export interface CustomersAnswer {
  readonly meter: string;
  readonly version: number;
  readonly unit: string;
  readonly start: string;
  readonly end: string;
  readonly asOf: string | null;
  readonly backfilling?: true;
  /** Largest quantity first, equal ones by name. */
  readonly data: readonly { readonly customer: string; readonly quantity: string }[];
}

export type Reading<Answer> =
  | { readonly kind: "answer"; readonly answer: Answer }
  | { readonly kind: "problem"; readonly problem: Problem };

/**
 * Usage of one meter by one customer (or by all together, which only the page asks for), now or as known at a cut.
 *
 * The watermark first: read after the figures, it could vouch for usage that they do not hold yet (breaks G7).
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readUsage(request: UsageRequest, ports: UsagePorts): Promise<Reading<UsageAnswer>> {
  const { analytics, stream } = ports;
  const cutAt = request.knownAt === null ? null : cutOf(request.knownAt, stream);
  const watermarkAt = await readWatermark(analytics, stream);
  if (cutAt !== null && (watermarkAt === null || watermarkAt < cutAt))
    return notSealed(cutAt, { kind: "open", reason: "watermark", watermarkAt });
  const definition = await findDefinition(request, ports);
  if (definition === null) return meterUnknown(request);
  if (cutAt !== null && isBackfilling(definition, cutAt))
    return notSealed(cutAt, { kind: "open", reason: "backfill", watermarkAt });
  const dimensions = Object.keys(definition.version.rule.dimensions);
  const unknown = request.groupBy.filter((name) => !dimensions.includes(name));
  if (unknown.length > 0) return dimensionsUnknown(unknown, dimensions);
  const { rowsMax, eventsMax } = USAGE_LIMITS;
  const reading = await readUsageGroups(analytics, { ...request, definition, cutAt, watermarkAt, rowsMax, eventsMax });
  if (reading.kind === "refused") return refusalOf(reading.refusal);
  const asOfAt = cutAt ?? watermarkAt;
  return {
    kind: "answer",
    answer: {
      customer: request.customer,
      meter: request.meter,
      version: definition.version.version,
      unit: await readUnit(ports.control, definition),
      window: request.window,
      tz: request.zone.name,
      asOf: asOfAt === null ? null : formatInstant(asOfAt),
      ...(cutAt === null ? backfillingOf(definition) : {}),
      data: rowsOf(request, definition, reading.groups),
    },
  };
}

/**
 * Customers by quantity, largest first.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readCustomers(request: CustomersRequest, ports: UsagePorts): Promise<Reading<CustomersAnswer>> {
  const watermarkAt = await readWatermark(ports.analytics, ports.stream);
  const definition = await findDefinition(request, ports);
  if (definition === null) return meterUnknown(request);
  const reading = await readCustomerTotals(ports.analytics, {
    ...request,
    definition,
    eventsMax: USAGE_LIMITS.eventsMax,
  });
  if (reading.kind === "refused") return refusalOf(reading.refusal);
  return {
    kind: "answer",
    answer: {
      meter: request.meter,
      version: definition.version.version,
      unit: await readUnit(ports.control, definition),
      start: formatInstant(request.fromAt),
      end: formatInstant(request.toAt),
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      ...backfillingOf(definition),
      data: reading.customers.map(({ customer, quantity }) => ({ customer, quantity: formatQuantity(quantity) })),
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

/** Rows of the answer. Nothing adds up to 0, said in one row; but the smallest of nothing is no number, so min, max and latest have none. */
function rowsOf(
  request: UsageRequest,
  definition: MeterDefinition,
  groups: readonly UsageGroup[],
): readonly UsageRow[] {
  const { zone, fromAt: startAt, toAt: endAt } = request;
  const isZero = groups.length === 0 && request.window === "total" && request.groupBy.length === 0;
  const hasZero = /^(?:sum|count|unique_count)$/.test(definition.version.rule.aggregation);
  const nothing: readonly UsageGroup[] = hasZero ? [{ startAt, endAt, group: [], quantity: ZERO_QUANTITY }] : [];
  return (isZero ? nothing : groups).map((row) => ({
    start: formatLocal(zone, row.startAt),
    end: formatLocal(zone, row.endAt),
    group: Object.fromEntries(request.groupBy.map((name, index) => [name, row.group[index] ?? ""])),
    quantity: formatQuantity(row.quantity),
  }));
}

/** Says that the figures still grow, and nothing otherwise. */
function backfillingOf(definition: MeterDefinition): { readonly backfilling?: true } {
  return isBackfilling(definition, null) ? { backfilling: true } : {};
}

type Refused = { readonly kind: "problem"; readonly problem: Problem };

function meterUnknown({ mode, meter, version }: Question): Refused {
  const what = version === undefined ? `meter "${meter}"` : `version ${version} of meter "${meter}"`;
  const detail = `${what} is not active in mode ${mode}; GET /admin/v1/meters lists what exists`;
  return { kind: "problem", problem: { status: 404, code: "METER_UNKNOWN", detail } };
}

function dimensionsUnknown(unknown: readonly string[], declared: readonly string[]): Refused {
  const exists = declared.length === 0 ? "the meter declares none" : `the meter declares ${declared.join(", ")}`;
  const rule = `names no dimension of the meter: ${unknown.join(", ")}; ${exists}`;
  return { kind: "problem", problem: queryInvalid([{ field: "groupBy", rule }]) };
}

function refusalOf({ kind }: Refusal): Refused {
  const rules = {
    rows: ["window", `would give more than ${USAGE_LIMITS.rowsMax} rows: ask for a shorter range or a longer window`],
    events: [
      "from",
      `and to need more than ${USAGE_LIMITS.eventsMax} usage events one by one, of cut 15-minute windows and of corrected ones: ` +
        "use multiples of 15 minutes, or a shorter range",
    ],
    expired: [
      "from",
      "lies where single usage events are no longer kept (some 400 days): a cut or corrected 15-minute window there is not known",
    ],
  } as const;
  const [field, rule] = rules[kind];
  return { kind: "problem", problem: queryInvalid([{ field, rule }]) };
}

/** 409: the answer would not be final. */
function notSealed(cutAt: number, state: Extract<SealState, { kind: "open" }>): Refused {
  const reached =
    state.watermarkAt === null ? "no watermark yet" : `the watermark is ${formatInstant(state.watermarkAt)}`;
  const why =
    state.reason === "watermark"
      ? `${reached}: ask again when it has passed ${formatInstant(cutAt)}, or for an earlier knownAt`
      : `${reached}, but usage in front of the meter's activation is still being counted: ask again in a while`;
  return { kind: "problem", problem: { status: 409, code: "USAGE_NOT_SEALED", detail: `not sealed: ${why}` } };
}
