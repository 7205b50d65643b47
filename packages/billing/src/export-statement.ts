/** A statement with every usage event behind it, as JSON Lines that a stand-alone verifier rebuilds it from (docs/statements.md). */
import { type AnalyticsStore, canonicalJson, parseInstant } from "@tallyhouse/domain";
import {
  type EventPlace,
  type MeterDefinition,
  walkCountedEvents,
  type WalkedEvent,
  type WalkedPart,
} from "@tallyhouse/usage";
import { compileItemOf, eventTuple } from "./event-digest.ts";
import type { StatementDocument } from "./statement.ts";
import type { StoredStatement } from "./statement-store.ts";

/** First line of an export: the statement's own text, which its digest is made of. */
export function exportHead({ text, digest }: Pick<StoredStatement, "text" | "digest">): string {
  return `{"digest":"${digest}","schema":"tallyhouse.export/1","statement":${text}}\n`;
}

/** One line of an export: a usage event that an item counted; its text is the one that the item's digest is made of. */
export function exportLine({ item, event, part }: ItemEvent): string {
  return `{"event":${canonicalJson(eventTuple(event, part))},"item":${canonicalJson(item)}}\n`;
}

/** Last line of an export: without it, the file was cut off. */
export function exportEnd(events: number): string {
  return `{"end":{"events":${events}}}\n`;
}

/** A usage event as one item of a statement counted it. */
export interface ItemEvent {
  readonly item: string;
  readonly event: WalkedEvent;
  readonly part: WalkedPart;
}

/** A part of a walk: what the items counted, and how far it got, which may be further; null: nowhere yet. */
export interface StatementPage {
  readonly events: readonly ItemEvent[];
  readonly reached: EventPlace | null;
}

/** Which of a statement's usage events; all of them without it. */
export interface StatementPart {
  /** Of this item alone. */
  readonly item?: string;
  /** That occurred in this part of the period. */
  readonly span?: { readonly fromAt: number; readonly toAt: number };
  /** Behind this place; only with an item. */
  readonly after?: EventPlace | null;
  /** About how many are wanted. */
  readonly firstRows?: number;
}

/**
 * The usage events behind a statement as known at its cut, page by page. Of each item they come in the order of its digest; items
 * whose meters count one event type come together.
 * @param definitions of the statement's mode; a meter version that is missing there has no usage event
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function* walkStatement(
  analytics: AnalyticsStore,
  { document, definitions }: { readonly document: StatementDocument; readonly definitions: readonly MeterDefinition[] },
  wanted: StatementPart = {},
): AsyncGenerator<StatementPage> {
  const itemOf = compileItemOf(meteredItems(document));
  const items = document.plan.items.filter(({ key }) => wanted.item === undefined || key === wanted.item);
  const used = definitions.filter(({ version }) =>
    items.some(({ meter, meterVersion }) => meter === version.meter && meterVersion === version.version),
  );
  const period = { fromAt: parseInstant(document.period.start) ?? 0, toAt: parseInstant(document.period.end) ?? 0 };
  for (const ofType of Map.groupBy(used, ({ version }) => version.rule.eventType).values()) {
    const pages = walkCountedEvents(analytics, {
      ...(wanted.span ?? period),
      mode: document.mode,
      customer: document.customer,
      definitions: ofType,
      cutAt: parseInstant(document.cut) ?? 0,
      after: wanted.after ?? null,
      ...(wanted.firstRows === undefined ? {} : { firstRows: wanted.firstRows }),
    });
    for await (const page of pages) {
      const events = page.flatMap((event) =>
        event.parts.flatMap((part) => {
          const item = itemOf(part)?.key;
          return item === undefined || (wanted.item !== undefined && item !== wanted.item)
            ? []
            : [{ item, event, part }];
        }),
      );
      yield { events, reached: page.at(-1) ?? null };
    }
  }
}

function meteredItems({ plan, rules }: StatementDocument) {
  return plan.items.map((item) => {
    const rule = rules.find(({ meter, version }) => meter === item.meter && version === item.meterVersion);
    return { ...item, dimensions: rule?.dimensions ?? [] };
  });
}

/**
 * The export, piece by piece: a page of usage events is all that is held. Cut off by a failure it has no end line, so that nobody
 * takes a part for the whole.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); what was yielded before is no export.
 */
export async function* exportStatement(
  analytics: AnalyticsStore,
  { stored, definitions }: { readonly stored: StoredStatement; readonly definitions: readonly MeterDefinition[] },
): AsyncGenerator<string> {
  yield exportHead(stored);
  let events = 0;
  for await (const page of walkStatement(analytics, { document: stored.document, definitions })) {
    events += page.events.length;
    yield page.events.map(exportLine).join("");
  }
  yield exportEnd(events);
}
