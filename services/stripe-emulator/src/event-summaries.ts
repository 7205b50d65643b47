import { type Answer, badRequest, missingReference } from "./answer.ts";
import { type Decimal, toJsonNumber } from "./decimal.ts";
import { aggregate } from "./event-table.ts";
import { type Call, type Handlers, livemode, type ReadSettings } from "./handler.ts";
import { seededText } from "./ids.ts";
import { listPage, type PageParameters } from "./lists.ts";
import { missingMeter } from "./meters.ts";
import { isDeleted, type Meter } from "./state.ts";

const WINDOW_SECONDS = { minute: 60, hour: 3_600, day: 86_400 } as const;

interface SummaryParameters extends PageParameters {
  readonly customer: string;
  /** Unix seconds, inclusive. */
  readonly start_time: number;
  /** Unix seconds, exclusive. */
  readonly end_time: number;
  readonly value_grouping_window?: "hour" | "day";
}

interface Summary {
  readonly id: string;
  readonly object: "billing.meter_event_summary";
  readonly aggregated_value: number;
  readonly end_time: number;
  readonly livemode: boolean;
  readonly meter: string;
  readonly start_time: number;
}

/**
 * `GET /v1/billing/meters/{id}/event_summaries`. Ungrouped one row, also without events; grouped one row per hour or
 * UTC day that has events, newest first. Sums are exact; only the answer's JSON number is rounded, to the nearest double.
 */
export const eventSummaryHandlers: Handlers = {
  "GET /v1/billing/meters/{id}/event_summaries": {
    effect: "read",
    supported: [
      "limit",
      "starting_after",
      "ending_before",
      "customer",
      "start_time",
      "end_time",
      "value_grouping_window",
    ],
    run: list,
  },
};

function list(call: Call, settings: ReadSettings): Answer {
  const { data, id, parameters } = call;
  const query = parameters as unknown as SummaryParameters;
  const meter = data.meters.get(id);
  if (meter === undefined) return missingMeter(id);
  const customer = data.customers.get(query.customer);
  if (customer === undefined || isDeleted(customer)) {
    return missingReference({ noun: "customer", id: query.customer, param: "customer" });
  }
  const problem = checkSpan(query);
  if (problem !== undefined) return problem;
  const rows = summarize(call, meter, visiblePositions(call, settings));
  return listPage(
    {
      url: `/v1/billing/meters/${id}/event_summaries`,
      noun: "meter event summary",
      rows,
      positionOf: (cursor) => rows.findIndex((row) => row.id === cursor),
      has: () => true,
    },
    query,
  );
}

function checkSpan({
  start_time: start,
  end_time: end,
  value_grouping_window: window,
}: SummaryParameters): Answer | undefined {
  const unit = window ?? "minute";
  for (const [param, value] of Object.entries({ start_time: start, end_time: end })) {
    if (value >= 0 && value % WINDOW_SECONDS[unit] === 0) continue;
    return badRequest(`${param} must be aligned with ${unit} boundaries (it currently is '${value}').`, { param });
  }
  if (start < end) return undefined;
  return badRequest("start_time must be before end_time.", { param: "start_time" });
}

/** Positions of the pair's events inside the span that have been received long enough ago. */
function visiblePositions({ data, at, id, parameters }: Call, { summaryLagMs }: ReadSettings): number[] {
  const { customer, start_time: start, end_time: end } = parameters as unknown as SummaryParameters;
  return data.events.counted(id, customer).filter((position) => {
    const timestamp = data.events.timestampAt(position);
    return timestamp >= start && timestamp < end && data.events.receivedAtAt(position) + summaryLagMs <= at;
  });
}

/** Rows from old to new. */
function summarize({ state, data, parameters }: Call, meter: Meter, positions: readonly number[]): Summary[] {
  const {
    customer,
    start_time: start,
    end_time: end,
    value_grouping_window: window,
  } = parameters as unknown as SummaryParameters;
  const span = window === undefined ? end - start : WINDOW_SECONDS[window];
  const groups = new Map<number, number[]>(window === undefined ? [[start, []]] : []);
  for (const position of positions) {
    const from = start + Math.floor((data.events.timestampAt(position) - start) / span) * span;
    const group = groups.get(from);
    if (group === undefined) groups.set(from, [position]);
    else group.push(position);
  }
  return [...groups]
    .sort(([left], [right]) => left - right)
    .map(([from, group]) => ({
      id: `mtrusg_${seededText(state.seed, `${meter.id} ${customer} ${from} ${span}`, 24)}`,
      object: "billing.meter_event_summary",
      aggregated_value: toJsonNumber(valueOf(meter, aggregate(data.events, group))),
      end_time: from + span,
      livemode: livemode(data),
      meter: meter.id,
      start_time: from,
    }));
}

function valueOf(meter: Meter, { sum, count, last }: { sum: Decimal; count: number; last: Decimal }): Decimal {
  switch (meter.default_aggregation.formula) {
    case "sum":
      return sum;
    case "count":
      return { units: BigInt(count), scale: 0 };
    case "last":
      return last;
  }
}
