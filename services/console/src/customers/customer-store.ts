/** Customers in PostgreSQL. Every change stands in one transaction with its row of the audit log. */
import { type ControlStore, formatInstant, type Mode, type SqlRunner } from "@tallyhouse/domain";
import { writeAudit } from "../admin-audit.ts";
import type { Contact } from "./customer-bodies.ts";

/** Who is asked about: one customer of one mode. */
export interface CustomerKey {
  readonly mode: Mode;
  readonly id: string;
}

/** What an operator says of a customer. */
export interface CustomerFields {
  readonly name: string;
  readonly zone: string;
  /** null: what the plan says. */
  readonly billing: "stripe" | "none" | null;
  /** By kind, then address. */
  readonly contacts: readonly Contact[];
}

export interface Customer extends CustomerKey, CustomerFields {
  readonly createdAt: number;
  readonly createdBy: string;
}

/** Who asks for a change, when and why. */
export interface Authorship {
  readonly actor: string;
  readonly reason: string;
  readonly nowAt: number;
}

/** The customer of this mode; null for one that does not exist, in another mode perhaps. */
export async function readCustomer(control: SqlRunner, { mode, id }: CustomerKey): Promise<Customer | null> {
  const [row] = await control.query<Omit<Customer, "contacts" | "createdAt" | "createdBy" | "id"> & Row>(
    "SELECT mode, customer_id, name, zone, billing, created_at, created_by FROM customer WHERE mode = $1 AND customer_id = $2",
    [mode, id],
  );
  if (row === undefined) return null;
  const contacts = await control.query<Contact>(
    "SELECT kind, name, email FROM customer_contact WHERE mode = $1 AND customer_id = $2 ORDER BY kind, email",
    [mode, id],
  );
  const { name, zone, billing, created_at: createdAt, created_by: createdBy } = row;
  return { mode, id, name, zone, billing, contacts, createdAt: createdAt.getTime(), createdBy };
}

interface Row {
  readonly customer_id: string;
  readonly created_at: Date;
  readonly created_by: string;
}

/**
 * Creates a customer. Safe to repeat with an id: one that exists with the same fields is `known`. Without an id each call makes
 * another customer.
 * @returns `exists` when the id has other fields.
 */
export async function createCustomer(
  control: ControlStore,
  input: { readonly mode: Mode; readonly id: string | undefined; readonly fields: CustomerFields } & Authorship,
): Promise<{ readonly kind: "made" | "known" | "exists"; readonly customer: Customer }> {
  const { mode, actor, reason, nowAt } = input;
  const fields = { ...input.fields, contacts: ordered(input.fields.contacts) };
  return control.transaction(async (tx) => {
    const id = input.id ?? (await newId(tx));
    const known = await readCustomer(tx, { mode, id });
    if (known !== null) return { kind: sameText(fieldsOf(known), fields) ? "known" : "exists", customer: known };
    await tx.query(
      `INSERT INTO customer (mode, customer_id, name, zone, billing, created_at, created_by)
       VALUES ($1, $2, $3, $4, $5, $6, $7)`,
      [mode, id, fields.name, fields.zone, fields.billing, new Date(nowAt), actor],
    );
    await insertContacts(tx, { mode, id }, fields.contacts);
    await writeAudit(tx, {
      mode,
      actor,
      reason,
      at: nowAt,
      action: "customer.create",
      before: null,
      after: fields,
      subject: { kind: "customer", id },
    });
    return { kind: "made", customer: { mode, id, ...fields, createdAt: nowAt, createdBy: actor } };
  });
}

/** Changes the fields that are given. Safe to repeat: what is so already is no change, and leaves no row in the log. */
export async function changeCustomer(
  control: ControlStore,
  input: CustomerKey & { readonly change: Partial<CustomerFields> } & Authorship,
): Promise<Customer | null> {
  const { mode, id, change, actor, reason, nowAt } = input;
  return control.transaction(async (tx) => {
    const known = await readCustomer(tx, { mode, id });
    if (known === null) return null;
    const before = fieldsOf(known);
    const merged = { ...before, ...change };
    const after = { ...merged, contacts: ordered(merged.contacts) };
    if (sameText(before, after)) return known;
    await tx.query("UPDATE customer SET name = $3, zone = $4, billing = $5 WHERE mode = $1 AND customer_id = $2", [
      mode,
      id,
      after.name,
      after.zone,
      after.billing,
    ]);
    await tx.query("DELETE FROM customer_contact WHERE mode = $1 AND customer_id = $2", [mode, id]);
    await insertContacts(tx, { mode, id }, after.contacts);
    await writeAudit(tx, {
      mode,
      actor,
      reason,
      at: nowAt,
      action: "customer.change",
      before,
      after,
      subject: { kind: "customer", id },
    });
    return { ...known, ...after };
  });
}

/** One line of a list. */
export interface ListedCustomer {
  readonly id: string;
  readonly name: string;
  readonly zone: string;
  readonly billing: CustomerFields["billing"];
  /** The plan at the instant of the question; null: none. */
  readonly plan: string | null;
  readonly createdAt: string;
}

/** Customers of a mode by id, a page after `after`: those whose id or name begins with `search`, names whatever their case. */
export async function listCustomers(
  control: SqlRunner,
  query: {
    readonly mode: Mode;
    readonly search: string;
    readonly after: string;
    readonly limit: number;
    readonly nowAt: number;
  },
): Promise<ListedCustomer[]> {
  const rows = await control.query<Omit<ListedCustomer, "createdAt"> & { readonly created_at: Date }>(
    `SELECT c.customer_id AS id, c.name, c.zone, c.billing, c.created_at,
       (SELECT a.plan_key FROM customer_assignment AS a
        WHERE a.mode = c.mode AND a.customer_id = c.customer_id AND a.superseded_at IS NULL AND a.effective_at <= $5
        ORDER BY a.effective_at DESC LIMIT 1) AS plan
     FROM customer AS c
     WHERE c.mode = $1 AND (starts_with(c.customer_id, $2) OR starts_with(lower(c.name), lower($2)))
       AND c.customer_id > $3
     ORDER BY c.customer_id LIMIT $4::int`,
    [query.mode, query.search, query.after, query.limit, new Date(query.nowAt)],
  );
  return rows.map(({ created_at: createdAt, ...row }) => ({ ...row, createdAt: formatInstant(createdAt.getTime()) }));
}

/** 128 random bits of the store's own. */
async function newId(tx: SqlRunner): Promise<string> {
  const [row] = await tx.query<{ id: string }>("SELECT 'cus_' || replace(gen_random_uuid()::text, '-', '') AS id");
  return row?.id ?? "";
}

async function insertContacts(tx: SqlRunner, { mode, id }: CustomerKey, contacts: readonly Contact[]): Promise<void> {
  await tx.query(
    `INSERT INTO customer_contact (mode, customer_id, kind, name, email)
     SELECT $1, $2, c.kind, c.name, c.email FROM json_to_recordset($3::text::json) AS c (kind text, name text, email text)`,
    [mode, id, JSON.stringify(contacts)],
  );
}

function fieldsOf({ name, zone, billing, contacts }: Customer): CustomerFields {
  return { name, zone, billing, contacts };
}

/** One order, and one order of keys, so that equal contacts are equal text. */
function ordered(contacts: readonly Contact[]): Contact[] {
  const keyOf = ({ kind, email }: Contact): string => `${kind} ${email}`;
  return contacts
    .map(({ kind, name, email }) => ({ kind, name, email }))
    .toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

function sameText({ name, zone, billing, contacts }: CustomerFields, other: CustomerFields): boolean {
  return (
    JSON.stringify([name, zone, billing, contacts]) ===
    JSON.stringify([other.name, other.zone, other.billing, other.contacts])
  );
}
