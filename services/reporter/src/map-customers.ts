import { type ControlStore, HOUR_MS, type SqlRunner } from "@tallyhouse/domain";
import { type Clock, type Logger, pause } from "@tallyhouse/runtime";
import type { AccountKey } from "./account.ts";
import { type DueWindow, unmappedCustomers } from "./due-marks.ts";
import { creationKeyOf } from "./identifier.ts";
import { recordset, sqlInstant } from "./ledger-row.ts";
import type { Pacer } from "./pacer.ts";
import type { StripeApi } from "./stripe/stripe-api.ts";

/** Customers journalled, created and written per pass. */
const PASS_CUSTOMERS_MAX = 200;
/** Creations in flight. */
const CREATE_CONCURRENCY = 16;
/** Stripe remembers an Idempotency-Key for at least 24 hours; an hour before, a repeat looks for the customer first. */
const KEY_AGE_MAX_MS = 23 * HOUR_MS;
/** Stripe's `created` against our clock: a look that begins too late would create a second customer. */
const CLOCK_SKEW_MS = HOUR_MS;

interface OpenCustomer {
  readonly customer_id: string;
  readonly state: "creating" | "adopting";
  readonly idempotency_key: string;
  readonly key_epoch: number;
  readonly key_created_at: Date;
  readonly created_at: Date;
}

interface MapInput {
  readonly account: AccountKey;
  readonly stripe: StripeApi;
  readonly control: ControlStore;
  readonly pacer: Pacer;
  readonly clock: Clock;
  readonly window: DueWindow;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Gives every customer with due usage a Stripe customer.
 *
 * The journal row with its key is committed before the call, so a repeat after a crash gets the same customer back. Once the
 * key may be forgotten, or after an answer that would only be replayed, the customer is looked for by its metadata before
 * another is created. A pass with failures ends the round. Safe to repeat.
 * @returns customers mapped.
 */
export async function mapCustomers(input: MapInput): Promise<number> {
  const { account, control, signal } = input;
  let mapped = 0;
  while (!signal.aborted) {
    const nowAt = input.clock.now();
    const names = await unmappedCustomers(control, { account, window: input.window, limit: PASS_CUSTOMERS_MAX });
    await journal(control, { account, names, nowAt });
    const open = await openCustomers(control, account);
    if (open.length === 0) return mapped;
    const { found, remaining } = await adopt(input, open, nowAt);
    const created = await createAll(input, remaining);
    const done = [...found, ...created.filter((creation) => creation.kind === "done")];
    await write(control, { account, found: done });
    const replayable = created.filter((creation) => creation.kind === "replayable");
    await lookFirstNextTime(control, { account, customers: replayable.map((creation) => creation.customer) });
    mapped += done.length;
    if (done.length < open.length) return mapped;
  }
  return mapped;
}

async function journal(
  control: SqlRunner,
  input: { account: AccountKey; names: readonly string[]; nowAt: number },
): Promise<void> {
  if (input.names.length === 0) return;
  const { account } = input;
  await control.query(
    `INSERT INTO stripe_customer_map (mode, stripe_account, customer_id, state, idempotency_key, key_created_at, created_at)
     SELECT $1, $2, n.customer_id, 'creating', n.idempotency_key, $4::timestamptz, $4::timestamptz
     FROM json_to_recordset($3::text::json) AS n (customer_id text, idempotency_key text) ON CONFLICT DO NOTHING`,
    [
      account.mode,
      account.stripeAccount,
      recordset(input.names.map((name) => ({ customer_id: name, idempotency_key: customerKeyOf(account, name, 0) }))),
      sqlInstant(input.nowAt),
    ],
  );
}

function openCustomers(control: SqlRunner, account: AccountKey): Promise<OpenCustomer[]> {
  return control.query<OpenCustomer>(
    `SELECT customer_id, state, idempotency_key, key_epoch, key_created_at, created_at FROM stripe_customer_map
     WHERE mode = $1 AND stripe_account = $2 AND state <> 'active' ORDER BY customer_id LIMIT $3::int`,
    [account.mode, account.stripeAccount, PASS_CUSTOMERS_MAX],
  );
}

function customerKeyOf(account: AccountKey, customerId: string, keyEpoch: number): string {
  return creationKeyOf([1, "customer", account.mode, account.stripeAccount, customerId, keyEpoch]);
}

interface Mapping {
  readonly customerId: string;
  readonly stripeCustomerId: string;
}

/** Looks for those whose creation may have happened unseen. When the look fails they wait: only `remaining` may be created. */
async function adopt(
  input: MapInput,
  open: readonly OpenCustomer[],
  nowAt: number,
): Promise<{ found: Mapping[]; remaining: OpenCustomer[] }> {
  const isDoubtful = (row: OpenCustomer): boolean =>
    row.state === "adopting" || nowAt - row.key_created_at.getTime() >= KEY_AGE_MAX_MS;
  const doubtful = open.filter(isDoubtful);
  const fresh = open.filter((row) => !isDoubtful(row));
  if (doubtful.length === 0) return { found: [], remaining: fresh };
  const sinceAt = Math.min(...doubtful.map((row) => row.created_at.getTime())) - CLOCK_SKEW_MS;
  const listed = await input.stripe.listCustomersSince(sinceAt);
  if (listed.kind !== "done") {
    input.log.warn({ answer: listed.kind, reason: listed.message }, "Stripe customers cannot be listed");
    return { found: [], remaining: fresh };
  }
  const found: Mapping[] = [];
  const absent: OpenCustomer[] = [];
  for (const row of doubtful) {
    const stripeCustomerId = listed.value.get(row.customer_id);
    if (stripeCustomerId === undefined) absent.push(row);
    else found.push({ customerId: row.customer_id, stripeCustomerId });
  }
  return { found, remaining: [...fresh, ...(await giveNewKeys(input, absent, nowAt))] };
}

/** A new key, committed before it is used: a crash after the call then repeats it under that key. */
async function giveNewKeys(input: MapInput, rows: readonly OpenCustomer[], nowAt: number): Promise<OpenCustomer[]> {
  const renewed = rows.map((row) => ({
    ...row,
    state: "creating" as const,
    key_epoch: row.key_epoch + 1,
    idempotency_key: customerKeyOf(input.account, row.customer_id, row.key_epoch + 1),
  }));
  if (renewed.length === 0) return renewed;
  const keys = renewed.map(({ customer_id, key_epoch, idempotency_key }) => ({
    customer_id,
    key_epoch,
    idempotency_key,
  }));
  await input.control.query(
    `UPDATE stripe_customer_map AS c SET state = 'creating', key_epoch = r.key_epoch, idempotency_key = r.idempotency_key,
       key_created_at = $4::timestamptz
     FROM json_to_recordset($3::text::json) AS r (customer_id text, key_epoch int, idempotency_key text)
     WHERE c.mode = $1 AND c.stripe_account = $2 AND c.customer_id = r.customer_id AND c.state <> 'active'`,
    [input.account.mode, input.account.stripeAccount, recordset(keys), sqlInstant(nowAt)],
  );
  return renewed;
}

type Creation =
  | ({ readonly kind: "done" } & Mapping)
  /** The answer is definitive and may be replayed for this key: look first, then use another. */
  | { readonly kind: "replayable"; readonly customer: OpenCustomer }
  /** Nothing is known: the same key again. */
  | { readonly kind: "open" };

async function createAll(input: MapInput, rows: readonly OpenCustomer[]): Promise<Creation[]> {
  const created: Creation[] = [];
  const queue = [...rows];
  const worker = async (): Promise<void> => {
    for (let row = queue.shift(); row !== undefined && !input.signal.aborted; row = queue.shift()) {
      while (input.pacer.take(1) === 0 && !input.signal.aborted) await pause(input.pacer.waitMs(1), input.signal);
      created.push(await createOne(input, row));
    }
  };
  await Promise.all(Array.from({ length: CREATE_CONCURRENCY }, worker));
  return created;
}

async function createOne(input: MapInput, row: OpenCustomer): Promise<Creation> {
  const result = await input.stripe.createCustomer({
    customerId: row.customer_id,
    idempotencyKey: row.idempotency_key,
  });
  if (result.kind === "done") return { kind: "done", customerId: row.customer_id, stripeCustomerId: result.value };
  input.log.warn({ answer: result.kind, reason: result.message }, "a Stripe customer was not created");
  return result.kind === "failed" || result.kind === "refused"
    ? { kind: "replayable", customer: row }
    : { kind: "open" };
}

async function write(control: SqlRunner, input: { account: AccountKey; found: readonly Mapping[] }): Promise<void> {
  if (input.found.length === 0) return;
  await control.query(
    `UPDATE stripe_customer_map AS c SET state = 'active', stripe_customer_id = r.stripe_customer_id
     FROM json_to_recordset($3::text::json) AS r (customer_id text, stripe_customer_id text)
     WHERE c.mode = $1 AND c.stripe_account = $2 AND c.customer_id = r.customer_id AND c.state <> 'active'`,
    [
      input.account.mode,
      input.account.stripeAccount,
      recordset(input.found.map((row) => ({ customer_id: row.customerId, stripe_customer_id: row.stripeCustomerId }))),
    ],
  );
}

async function lookFirstNextTime(
  control: SqlRunner,
  input: { account: AccountKey; customers: readonly OpenCustomer[] },
): Promise<void> {
  if (input.customers.length === 0) return;
  await control.query(
    `UPDATE stripe_customer_map AS c SET state = 'adopting'
     FROM json_to_recordset($3::text::json) AS r (customer_id text)
     WHERE c.mode = $1 AND c.stripe_account = $2 AND c.customer_id = r.customer_id AND c.state = 'creating'`,
    [
      input.account.mode,
      input.account.stripeAccount,
      recordset(input.customers.map((row) => ({ customer_id: row.customer_id }))),
    ],
  );
}
