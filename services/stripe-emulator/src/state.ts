import { Collection } from "./collection.ts";
import { EventTable } from "./event-table.ts";
import { IdempotencyStore } from "./idempotency.ts";

/** Which data partition a key reads and writes. The key's prefix selects it; the two share nothing. */
export const MODES = ["test", "live"] as const;
export type Mode = (typeof MODES)[number];

/** How long an identifier is refused a second time: 24 h by receipt (the least Stripe promises), or for ever. */
export type IdentifierMemory = "24h" | "forever";

/** A customer as Stripe shows it. */
export interface Customer {
  readonly id: string;
  readonly object: "customer";
  readonly created: number;
  readonly email: string | null;
  readonly name: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

/** What is left of a deleted customer. */
export interface DeletedCustomer {
  readonly id: string;
  readonly object: "customer";
  readonly deleted: true;
}

/** A billing meter as Stripe shows it. */
export interface Meter {
  readonly id: string;
  readonly object: "billing.meter";
  readonly created: number;
  readonly customer_mapping: { readonly event_payload_key: string; readonly type: "by_id" };
  readonly default_aggregation: { readonly formula: "sum" | "count" | "last" };
  readonly display_name: string;
  readonly event_name: string;
  readonly event_time_window: null;
  readonly livemode: boolean;
  readonly status: "active" | "inactive";
  readonly status_transitions: { readonly deactivated_at: number | null };
  readonly updated: number;
  readonly value_settings: { readonly event_payload_key: string };
}

/** Everything of one mode. */
export interface ModeState {
  readonly mode: Mode;
  readonly customers: Collection<Customer | DeletedCustomer>;
  readonly meters: Collection<Meter>;
  /** Event name → its active meter; there is at most one. */
  readonly activeMeters: Map<string, string>;
  readonly events: EventTable;
  readonly idempotency: IdempotencyStore;
}

/** The whole emulator: a fold over its journal. */
export interface EmulatorState {
  /** Number of the last command folded in; the first is 1. */
  seq: number;
  seed: string;
  identifierMemory: IdentifierMemory;
  readonly modes: Readonly<Record<Mode, ModeState>>;
}

/** The state before the first command. */
export function emptyState(): EmulatorState {
  return { seq: 0, seed: "", identifierMemory: "24h", modes: { test: emptyMode("test"), live: emptyMode("live") } };
}

function emptyMode(mode: Mode): ModeState {
  return {
    mode,
    customers: new Collection(),
    meters: new Collection(),
    activeMeters: new Map(),
    events: new EventTable(),
    idempotency: new IdempotencyStore(),
  };
}

export function isDeleted(customer: Customer | DeletedCustomer): customer is DeletedCustomer {
  return "deleted" in customer;
}
