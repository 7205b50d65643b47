import { type Answer, badRequest, missingObject } from "./answer.ts";
import { type Call, type Handlers, livemode, seconds } from "./handler.ts";
import { seededText } from "./ids.ts";
import { listPage, type PageParameters } from "./lists.ts";
import { type Customer, isDeleted } from "./state.ts";

// @see https://docs.stripe.com/api/metadata (read 2026-07)
const METADATA_KEYS_MAX = 50;
const METADATA_KEY_LENGTH_MAX = 40;
const METADATA_VALUE_LENGTH_MAX = 500;
/** Of `business_name` and `individual_name`, and of `email`: from the API description's texts. */
const PERSON_NAME_LENGTH_MAX = 150;
const EMAIL_LENGTH_MAX = 512;

interface Address {
  readonly city?: string;
  readonly country?: string;
  readonly line1?: string;
  readonly line2?: string;
  readonly postal_code?: string;
  readonly state?: string;
}

interface InvoiceSettings {
  readonly custom_fields?: "" | readonly { readonly name: string; readonly value: string }[];
  readonly footer?: string;
  readonly rendering_options?: "" | { readonly amount_tax_display?: string };
}

/** The parameters of create and update after the check; an empty text unsets. */
interface CustomerParameters {
  readonly address?: "" | Address;
  readonly balance?: number;
  readonly business_name?: string;
  readonly description?: string;
  readonly email?: string;
  readonly individual_name?: string;
  readonly invoice_prefix?: string;
  readonly invoice_settings?: InvoiceSettings;
  readonly metadata?: "" | Readonly<Record<string, string>>;
  readonly name?: string;
  readonly next_invoice_sequence?: number;
  readonly phone?: string;
  readonly preferred_locales?: readonly string[];
  readonly shipping?: "" | { readonly address: Address; readonly name: string; readonly phone?: string };
  readonly tax_exempt?: string;
}

interface CustomerListParameters extends PageParameters {
  readonly created?:
    | number
    | { readonly gt?: number; readonly gte?: number; readonly lt?: number; readonly lte?: number };
  readonly email?: string;
}

const WRITABLE = [
  "address",
  "balance",
  "business_name",
  "description",
  "email",
  "individual_name",
  "invoice_prefix",
  "invoice_settings",
  "metadata",
  "name",
  "next_invoice_sequence",
  "phone",
  "preferred_locales",
  "shipping",
  "tax_exempt",
] as const;

/** Documented below a writable one, and not built. */
const NOT_WRITABLE = ["invoice_settings[default_payment_method]", "invoice_settings[rendering_options][template]"];

/** `/v1/customers`. Unsetting address or shipping gives null; a new address replaces the old one whole (assumption). */
export const customerHandlers: Handlers = {
  "GET /v1/customers": {
    effect: "read",
    supported: ["limit", "starting_after", "ending_before", "created", "email"],
    run: list,
  },
  "POST /v1/customers": { effect: "write", supported: WRITABLE, unsupported: NOT_WRITABLE, run: create },
  "GET /v1/customers/{id}": {
    effect: "read",
    supported: [],
    run({ data, id }) {
      const customer = data.customers.get(id);
      return customer === undefined ? missingObject("customer", id) : { status: 200, body: customer };
    },
  },
  "POST /v1/customers/{id}": { effect: "write", supported: WRITABLE, unsupported: NOT_WRITABLE, run: update },
  "DELETE /v1/customers/{id}": {
    effect: "write",
    supported: [],
    run({ data, id }) {
      const customer = data.customers.get(id);
      if (customer === undefined || isDeleted(customer)) return missingObject("customer", id);
      const tombstone = { id, object: "customer", deleted: true } as const;
      data.customers.replace(tombstone);
      return { status: 200, body: tombstone };
    },
  },
};

function list({ data, parameters }: Call): Answer {
  const query = parameters as CustomerListParameters;
  return listPage(
    {
      url: "/v1/customers",
      noun: "customer",
      rows: data.customers.rows,
      positionOf: (id) => data.customers.positionOf(id),
      has: (row) =>
        !isDeleted(row) &&
        (query.email === undefined || row.email === query.email) &&
        isCreatedWithin(row, query.created),
    },
    query,
  );
}

function isCreatedWithin(customer: Customer, created: CustomerListParameters["created"]): boolean {
  if (created === undefined) return true;
  if (typeof created === "number") return customer.created === created;
  const { gt = -Infinity, gte = -Infinity, lt = Infinity, lte = Infinity } = created;
  const at = customer.created;
  return at > gt && at >= gte && at < lt && at <= lte;
}

function create(call: Call): Answer {
  const { state, data, at } = call;
  const name = `${data.mode} customer ${data.customers.rows.length}`;
  const blank: Customer = {
    id: `cus_${seededText(state.seed, name, 14)}`,
    object: "customer",
    address: null,
    balance: 0,
    created: seconds(at),
    currency: null,
    customer_account: null,
    default_source: null,
    delinquent: false,
    description: null,
    discount: null,
    email: null,
    invoice_prefix: seededText(state.seed, `${name} prefix`, 8).toUpperCase(),
    invoice_settings: { custom_fields: null, default_payment_method: null, footer: null, rendering_options: null },
    livemode: livemode(data),
    metadata: {},
    name: null,
    next_invoice_sequence: 1,
    phone: null,
    preferred_locales: [],
    shipping: null,
    tax_exempt: "none",
    test_clock: null,
  };
  const parameters = call.parameters as CustomerParameters;
  const problem = check(parameters, blank);
  if (problem !== undefined) return problem;
  const customer = merge(blank, parameters);
  data.customers.add(customer);
  return { status: 200, body: customer };
}

function update({ data, id, parameters }: Call): Answer {
  const customer = data.customers.get(id);
  if (customer === undefined || isDeleted(customer)) return missingObject("customer", id);
  const problem = check(parameters, customer);
  if (problem !== undefined) return problem;
  const updated = merge(customer, parameters);
  data.customers.replace(updated);
  return { status: 200, body: updated };
}

function check(parameters: CustomerParameters, customer: Customer): Answer | undefined {
  const { email, invoice_prefix: prefix, metadata } = parameters;
  if (email !== undefined && (email.length > EMAIL_LENGTH_MAX || !/^[^@\s]+@[^@\s]+$/.test(email))) {
    return badRequest(`Invalid email address: ${email}`, { code: "email_invalid", param: "email" });
  }
  if (prefix !== undefined && !/^[A-Z0-9]{1,12}$/.test(prefix)) {
    const message = "Invalid invoice_prefix: must be 1 to 12 uppercase letters or numbers.";
    return badRequest(message, { param: "invoice_prefix" });
  }
  for (const param of ["business_name", "individual_name"] as const) {
    if ((parameters[param]?.length ?? 0) <= PERSON_NAME_LENGTH_MAX) continue;
    return badRequest(`Invalid string: ${param} must be at most ${PERSON_NAME_LENGTH_MAX} characters`, { param });
  }
  return metadata === undefined || metadata === ""
    ? undefined
    : checkMetadata(mergeMetadata(customer.metadata, metadata));
}

function checkMetadata(metadata: Readonly<Record<string, string>>): Answer | undefined {
  const entries = Object.entries(metadata);
  if (entries.length > METADATA_KEYS_MAX) {
    return badRequest(`Metadata can have up to ${METADATA_KEYS_MAX} keys.`, { param: "metadata" });
  }
  for (const [key, value] of entries) {
    const param = `metadata[${key}]`;
    if (key.length > METADATA_KEY_LENGTH_MAX) {
      return badRequest(`Metadata keys can have up to ${METADATA_KEY_LENGTH_MAX} characters.`, { param });
    }
    if (value.length > METADATA_VALUE_LENGTH_MAX) {
      const message =
        `Metadata values can have up to ${METADATA_VALUE_LENGTH_MAX} characters, ` +
        `but you passed in a value that is ${value.length} characters.`;
      return badRequest(message, { param });
    }
  }
  return undefined;
}

function merge(customer: Customer, parameters: CustomerParameters): Customer {
  const { address, shipping, metadata, invoice_settings: invoice, ...plain } = parameters;
  const fields: Record<string, unknown> = {};
  for (const name of WRITABLE) {
    const value = Object.hasOwn(plain, name) ? plain[name as keyof typeof plain] : undefined;
    if (value !== undefined) fields[name] = value === "" ? null : value;
  }
  // Two fields that an object shows only while they are set.
  for (const name of ["business_name", "individual_name"]) if (fields[name] === null) fields[name] = undefined;
  if (parameters.tax_exempt === "") fields["tax_exempt"] = "none";
  if (address !== undefined) fields["address"] = address === "" ? null : fullAddress(address);
  if (shipping !== undefined) {
    fields["shipping"] =
      shipping === ""
        ? null
        : { address: fullAddress(shipping.address), name: shipping.name, phone: shipping.phone ?? null };
  }
  if (metadata !== undefined) fields["metadata"] = metadata === "" ? {} : mergeMetadata(customer.metadata, metadata);
  if (invoice !== undefined) {
    fields["invoice_settings"] = mergeInvoiceSettings(customer["invoice_settings"] as object, invoice);
  }
  return { ...customer, ...fields };
}

/** Keys with an empty value are removed, the others added or replaced. */
function mergeMetadata(
  old: Readonly<Record<string, string>>,
  changes: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries({ ...old, ...changes }).filter(([, value]) => value !== ""));
}

function mergeInvoiceSettings(old: object, changes: InvoiceSettings): object {
  const { custom_fields: customFields, footer, rendering_options: rendering } = changes;
  return {
    ...old,
    ...(customFields === undefined ? {} : { custom_fields: customFields === "" ? null : customFields }),
    ...(footer === undefined ? {} : { footer }),
    ...(rendering === undefined
      ? {}
      : {
          rendering_options:
            rendering === "" ? null : { amount_tax_display: rendering.amount_tax_display || null, template: null },
        }),
  };
}

function fullAddress(address: Address): object {
  const { city = null, country = null, line1 = null, line2 = null, postal_code = null, state = null } = address;
  return { city, country, line1, line2, postal_code, state };
}
