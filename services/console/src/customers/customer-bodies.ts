/** What may be asked about customers: bodies and queries of `/admin/v1/customers`. */
import { isJsonObject, type JsonObject, parseInstant } from "@tallyhouse/domain";
import { readZone } from "@tallyhouse/usage";
import { z } from "zod";
import { ActorSchema, line, ReasonSchema } from "../operator-words.ts";
import { IdentityPartsSchema } from "../raw-rows.ts";

/** Contacts of one customer. */
const CONTACTS_MAX = 20;
/** Bytes of a contract as JSON text: a whole plan has some 2 kB. */
const OVERRIDES_BYTES_MAX = 65_536;
/** Customers or rows of one answer. */
const LIST_MAX = 500;
const LIST_DEFAULT = 100;

/** Last parts of the path beside which a customer of that name could not be asked for. */
const RESERVED_IDS: readonly string[] = ["unbilled", ".", ".."];

/** Any id that usage events may carry, and that a path can. */
export const CustomerIdSchema = IdentityPartsSchema.shape.customer
  .refine((id) => !RESERVED_IDS.includes(id), "is a word that paths need for something else")
  .refine((id) => !/\/\.\.|\.\.\//.test(id), "must not have .. beside a slash: no path could carry it");

const ContactSchema = z.strictObject({
  kind: z.enum(["billing", "technical"], { error: "must be billing or technical" }),
  name: line(200).nullable().default(null),
  email: z.email("must be an e-mail address").max(254, "has at most 254 characters"),
});
/** One person or mailbox of a customer. */
export type Contact = z.output<typeof ContactSchema>;

const ZoneSchema = z
  .string({ error: "must be an IANA time zone such as Asia/Kolkata" })
  .refine(
    (name) => /^[A-Za-z]/.test(name) && readZone(name, { fromAt: 0, toAt: 0 }).kind === "zone",
    "must be an IANA time zone such as Asia/Kolkata",
  );
const BillingSchema = z.enum(["stripe", "none"], { error: "must be stripe, none, or null for what the plan says" });
const ContactsSchema = z
  .array(ContactSchema, { error: "must be a list of contacts" })
  .max(CONTACTS_MAX, `has at most ${CONTACTS_MAX} contacts`)
  .refine(
    (contacts) => new Set(contacts.map(({ kind, email }) => `${kind} ${email}`)).size === contacts.length,
    "names one address twice for one kind",
  );
const instant = z
  .string({ error: "must be an RFC 3339 instant such as 2026-12-01T00:00:00Z" })
  .refine((text) => parseInstant(text) !== null, "must be an RFC 3339 instant such as 2026-12-01T00:00:00Z");
const PlanKeySchema = z
  .string({ error: "must be the key of a plan" })
  .regex(/^[a-z][a-z0-9_]{0,62}$/, "must be the key of a plan: [a-z][a-z0-9_]{0,62}");

/** Body of `POST /admin/v1/customers`. Without an id one is made. */
export const CreateBodySchema = z.strictObject({
  id: CustomerIdSchema.optional(),
  name: line(200),
  zone: ZoneSchema.default("UTC").describe("days in what the customer sees; periods are counted in UTC"),
  contacts: ContactsSchema.default([]),
  billing: BillingSchema.nullable().default(null).describe("null: what the plan says"),
  actor: ActorSchema,
  reason: ReasonSchema.default("new customer"),
});

/** Body of `PATCH /admin/v1/customers/{id}`: what is absent stays; contacts are replaced as a whole. */
export const ChangeBodySchema = z
  .strictObject({
    name: line(200).optional(),
    zone: ZoneSchema.optional(),
    contacts: ContactsSchema.optional(),
    billing: BillingSchema.nullable().optional(),
    actor: ActorSchema,
    reason: ReasonSchema,
  })
  .refine(
    ({ name, zone, contacts, billing }) => [name, zone, contacts, billing].some((value) => value !== undefined),
    "must change at least one of name, zone, contacts and billing",
  );

/** Body of `POST /admin/v1/customers/{id}/plan`. */
export const PlanBodySchema = z
  .strictObject({
    plan: PlanKeySchema.nullable().describe("null: no plan from then on"),
    at: instant.describe("not before this instant: at the first boundary of a period from it on").optional(),
    from: instant.describe("for a customer without a plan: when the first period begins").optional(),
    actor: ActorSchema,
    reason: ReasonSchema,
  })
  .refine(({ at, from }) => at === undefined || from === undefined, {
    path: ["from"],
    message: "is for a customer without a plan, at for one who has one: give one of them",
  });

/** Body of `POST /admin/v1/customers/{id}/contract`. */
export const ContractBodySchema = z.strictObject({
  plan: PlanKeySchema,
  overrides: z
    .custom<JsonObject>(isJsonObject, "must be an object of plan fields")
    .refine(
      (overrides) => Buffer.byteLength(JSON.stringify(overrides)) <= OVERRIDES_BYTES_MAX,
      `has at most ${OVERRIDES_BYTES_MAX} bytes`,
    )
    .meta({ type: "object" }),
  actor: ActorSchema,
  reason: ReasonSchema,
});

const limit = z.coerce
  .number({ error: "must be a number" })
  .int("must be a whole number")
  .min(1, "must be at least 1")
  .max(LIST_MAX, `must be at most ${LIST_MAX}`)
  .default(LIST_DEFAULT);
/** PostgreSQL takes no NUL, and no id or name has any control character. */
const plainText = z
  .string()
  .max(256, "has at most 256 characters")
  .refine((text) => !/\p{Cc}/u.test(text), "must not have control characters");
const after = plainText.describe("`next` of the page before").optional();

/** Query of `GET /admin/v1/customers`. */
export const CustomersParameters = z.strictObject({
  search: plainText.describe("how id or name begins").optional(),
  after,
  limit,
});

/** Query of `GET /admin/v1/customers/unbilled`. */
export const UnbilledParameters = z.strictObject({ after, limit });

const SUBJECT_LENGTH_MAX = "customer/".length + 256;

/** Query of `GET /admin/v1/audit-log`. */
export const AuditLogParameters = z.strictObject({
  subject: z
    .string()
    .max(SUBJECT_LENGTH_MAX, "must be customer/ID or plan/KEY")
    .regex(/^(?:customer|plan)\/./, "must be customer/ID or plan/KEY")
    // Not in the pattern: tools that make requests from the document cannot read such classes.
    .refine((text) => !/\p{Cc}/u.test(text), "must hold no control characters")
    .optional(),
  before: z.coerce
    .number({ error: "must be the id of a row" })
    .int("must be the id of a row")
    .min(1, "must be the id of a row")
    .max(Number.MAX_SAFE_INTEGER, "must be the id of a row")
    .optional(),
  limit,
});
