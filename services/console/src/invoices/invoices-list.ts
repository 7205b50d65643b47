/** A customer's statements, the newest period first, each with its adjustments. */
import { listStatements, readStatementsOfPeriod, type StoredStatement } from "@tallyhouse/billing";
import { type ControlStore, formatInstant, type Mode, parseInstant } from "@tallyhouse/domain";

/** A statement in a list. */
export interface InvoiceView {
  readonly id: string;
  readonly period: { readonly start: string; readonly end: string };
  readonly plan: string;
  readonly currency: string;
  /** As it was sealed. */
  readonly total: string;
  readonly totalMinor: string;
  /** With every adjustment: the whole period as known now. */
  readonly adjustedTotal: string;
  readonly cut: string;
  readonly sealedAt: string;
  readonly digest: string;
  readonly adjustments: readonly object[];
  readonly explain: string;
}

/** One page of a list. */
export interface InvoicePage {
  readonly data: readonly InvoiceView[];
  /** The `before` of the next page; null: there is none. */
  readonly next: string | null;
}

/** Behind every adjustment of a period. */
const LAST_SEQ = 2_147_483_647;

/** @throws {TallyhouseError} STORE_UNAVAILABLE (retry). */
export async function listInvoices(
  control: ControlStore,
  of: { readonly mode: Mode; readonly customer: string; readonly beforeAt: number | null; readonly limit: number },
): Promise<InvoicePage> {
  const { mode, customer, limit } = of;
  const data: InvoiceView[] = [];
  let after = of.beforeAt === null ? null : { periodStartAt: of.beforeAt, seq: LAST_SEQ };
  for (;;) {
    const rows = await listStatements(control, { mode, customer, after, limit: limit + 1 });
    const periods = [...Map.groupBy(rows, ({ document }) => document.period.start)];
    for (const [index, [start, found]] of periods.entries()) {
      if (data.length === limit) return { data, next: data.at(-1)?.period.start ?? null };
      const periodStartAt = parseInstant(start) ?? 0;
      // The page may end among the adjustments of its last period.
      const isWhole = rows.length <= limit || index < periods.length - 1;
      const all = isWhole ? found : await readStatementsOfPeriod(control, { mode, customer, periodStartAt });
      data.push(viewOf(all));
      after = { periodStartAt, seq: LAST_SEQ };
    }
    if (rows.length <= limit) return { data, next: null };
  }
}

function viewOf(all: readonly StoredStatement[]): InvoiceView {
  const [first, ...adjustments] = all as readonly [StoredStatement, ...StoredStatement[]];
  const { document, digest, sealedAt } = first;
  return {
    id: document.id,
    period: { start: document.period.start, end: document.period.end },
    plan: document.plan.plan,
    currency: document.plan.currency,
    total: document.total,
    totalMinor: document.totalMinor,
    adjustedTotal: (adjustments.at(-1) ?? first).document.total,
    cut: document.cut,
    sealedAt: formatInstant(sealedAt),
    digest,
    adjustments: adjustments.map((one) => ({
      id: one.document.id,
      seq: one.document.seq,
      plan: one.document.plan.plan,
      difference: one.document.difference?.total ?? null,
      differenceMinor: one.document.difference?.totalMinor ?? null,
      cut: one.document.cut,
      sealedAt: formatInstant(one.sealedAt),
      digest: one.digest,
      reason: one.document.reason,
      actor: one.document.actor,
      explain: explainPath(one.document.id),
    })),
    explain: explainPath(document.id),
  };
}

/** Where a statement is explained; deeper with a query behind it. */
export function explainPath(id: string, query: Readonly<Record<string, string>> = {}): string {
  const text = new URLSearchParams(query).toString();
  return `/v1/invoices/${id}/explain${text === "" ? "" : `?${text}`}`;
}
