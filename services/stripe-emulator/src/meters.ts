import { type Answer, badRequest, missingObject } from "./answer.ts";
import { type Call, type Handlers, livemode, seconds } from "./handler.ts";
import { seededText } from "./ids.ts";
import { listPage, type PageParameters } from "./lists.ts";
import type { Meter } from "./state.ts";

interface MeterParameters {
  readonly display_name: string;
  readonly event_name: string;
  readonly default_aggregation: { readonly formula: Meter["default_aggregation"]["formula"] };
  readonly customer_mapping?: { readonly event_payload_key: string; readonly type: "by_id" };
  readonly value_settings?: { readonly event_payload_key: string };
}

interface MeterListParameters extends PageParameters {
  readonly status?: Meter["status"];
}

/**
 * `/v1/billing/meters`. Only `display_name` can change. One event name has at most one active meter, so creating or
 * reactivating a second one is refused. Changing to the status a meter has already is refused too (assumption).
 */
export const meterHandlers: Handlers = {
  "GET /v1/billing/meters": {
    effect: "read",
    supported: ["limit", "starting_after", "ending_before", "status"],
    run({ data, parameters }) {
      const query = parameters as MeterListParameters;
      return listPage(
        {
          url: "/v1/billing/meters",
          noun: "meter",
          rows: data.meters.rows,
          positionOf: (id) => data.meters.positionOf(id),
          has: (meter) => query.status === undefined || meter.status === query.status,
        },
        query,
      );
    },
  },
  "POST /v1/billing/meters": {
    effect: "write",
    supported: ["default_aggregation", "display_name", "event_name", "customer_mapping", "value_settings"],
    run: create,
  },
  "GET /v1/billing/meters/{id}": {
    effect: "read",
    supported: [],
    run: ({ data, id }) => {
      const meter = data.meters.get(id);
      return meter === undefined ? missingMeter(id) : { status: 200, body: meter };
    },
  },
  "POST /v1/billing/meters/{id}": {
    effect: "write",
    supported: ["display_name"],
    run: (call) => change(call, (meter) => ({ ...meter, ...(call.parameters as { display_name?: string }) })),
  },
  "POST /v1/billing/meters/{id}/deactivate": { effect: "write", supported: [], run: deactivate },
  "POST /v1/billing/meters/{id}/reactivate": { effect: "write", supported: [], run: reactivate },
};

/** 404 of a meter named in the path. */
export function missingMeter(id: string): Answer {
  return missingObject("meter", id);
}

function create({ state, data, at, parameters }: Call): Answer {
  const wanted = parameters as unknown as MeterParameters;
  if (data.activeMeters.has(wanted.event_name)) return nameTaken(wanted.event_name);
  const prefix = livemode(data) ? "mtr_61" : "mtr_test_61";
  const meter: Meter = {
    id: prefix + seededText(state.seed, `${data.mode} meter ${data.meters.rows.length}`, 30),
    object: "billing.meter",
    created: seconds(at),
    customer_mapping: {
      event_payload_key: wanted.customer_mapping?.event_payload_key ?? "stripe_customer_id",
      type: "by_id",
    },
    default_aggregation: { formula: wanted.default_aggregation.formula },
    display_name: wanted.display_name,
    event_name: wanted.event_name,
    event_time_window: null,
    livemode: livemode(data),
    status: "active",
    status_transitions: { deactivated_at: null },
    updated: seconds(at),
    value_settings: { event_payload_key: wanted.value_settings?.event_payload_key ?? "value" },
  };
  data.meters.add(meter);
  data.activeMeters.set(meter.event_name, meter.id);
  return { status: 200, body: meter };
}

function deactivate(call: Call): Answer {
  return change(call, (meter) => {
    if (meter.status === "inactive") return badRequest("This meter is already inactive.");
    call.data.activeMeters.delete(meter.event_name);
    return { ...meter, status: "inactive", status_transitions: { deactivated_at: seconds(call.at) } };
  });
}

function reactivate(call: Call): Answer {
  return change(call, (meter) => {
    if (meter.status === "active") return badRequest("This meter is already active.");
    if (call.data.activeMeters.has(meter.event_name)) return nameTaken(meter.event_name);
    call.data.activeMeters.set(meter.event_name, meter.id);
    return { ...meter, status: "active", status_transitions: { deactivated_at: null } };
  });
}

function change(call: Call, next: (meter: Meter) => Meter | Answer): Answer {
  const meter = call.data.meters.get(call.id);
  if (meter === undefined) return missingMeter(call.id);
  const changed = next(meter);
  if (!("id" in changed)) return changed;
  const updated = { ...changed, updated: seconds(call.at) };
  call.data.meters.replace(updated);
  return { status: 200, body: updated };
}

function nameTaken(eventName: string): Answer {
  return badRequest(`An active meter already exists with event name ${eventName}.`, { param: "event_name" });
}
