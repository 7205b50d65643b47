/** Prepaid credits: which grants pay for units, and which get units back. */
import { assert, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** Units that were bought ahead. */
export interface CreditGrant {
  readonly id: string;
  /** Lower ones are used first. */
  readonly priority: number;
  readonly grantedAt: number;
  /** From this instant on it pays for nothing; null: never. */
  readonly expiresAt: number | null;
  /** Units not used yet, 0 or more. */
  readonly left: Quantity;
}

/** Units that a grant paid for; below 0, units that it got back. */
export interface CreditSettlement {
  readonly grant: string;
  readonly units: Quantity;
}

/** What is to be settled. */
export interface CreditNeed {
  readonly grants: readonly CreditGrant[];
  /** What was settled for this item before, oldest first; only taking back reads it. */
  readonly settled: readonly CreditSettlement[];
  /** Units to pay for; below 0, units to take back. */
  readonly need: Quantity;
  /** The instant that decides which grants have expired. */
  readonly at: number;
}

/** What became of a need. */
export interface CreditsSettled {
  /** At most one of each grant, in the order of use. */
  readonly settlements: readonly CreditSettlement[];
  /** What no grant could pay for, or no settlement could give back; the sign is the need's. */
  readonly rest: Quantity;
}

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Priority, earliest expiry, oldest; the id at last, so that the order is total. */
function compareGrants(a: CreditGrant, b: CreditGrant): number {
  const expiresA = a.expiresAt ?? Number.POSITIVE_INFINITY;
  const expiresB = b.expiresAt ?? Number.POSITIVE_INFINITY;
  if (a.priority !== b.priority) return a.priority - b.priority;
  if (expiresA !== expiresB) return expiresA < expiresB ? -1 : 1;
  return a.grantedAt - b.grantedAt || compareText(a.id, b.id);
}

function minOf(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function use({ grants, need, at }: CreditNeed): CreditsSettled {
  let rest: bigint = need;
  const settlements: CreditSettlement[] = [];
  for (const { id, left, expiresAt } of grants.toSorted(compareGrants)) {
    assert(left >= 0n, `grant ${id} has less than nothing left`);
    const units = expiresAt !== null && expiresAt <= at ? 0n : minOf(left, rest);
    if (units === 0n) continue;
    settlements.push({ grant: id, units: quantityFromScaled(units) });
    rest -= units;
  }
  return { settlements, rest: quantityFromScaled(rest) };
}

function takeBack({ settled, need }: CreditNeed): CreditsSettled {
  let rest = -BigInt(need);
  /** Units of each grant that were given back already: they cancel its newest uses. */
  const returned = new Map<string, bigint>();
  const backOf = new Map<string, bigint>();
  for (const { grant, units } of settled.toReversed()) {
    const earlier = returned.get(grant) ?? 0n;
    if (units < 0n) {
      returned.set(grant, earlier - units);
      continue;
    }
    const cancelled = minOf(earlier, units);
    returned.set(grant, earlier - cancelled);
    const back = minOf(units - cancelled, rest);
    if (back === 0n) continue;
    backOf.set(grant, (backOf.get(grant) ?? 0n) + back);
    rest -= back;
  }
  const settlements = [...backOf].map(([grant, units]) => ({ grant, units: quantityFromScaled(-units) }));
  return { settlements, rest: quantityFromScaled(-rest) };
}

/**
 * Settles units against prepaid grants. A need above 0 is paid in the order priority, earliest expiry, oldest; expired grants pay for
 * nothing. A need below 0 gives units back to the grants that were used, the last use first, also to one that has expired since.
 * Pure: the caller stores the settlements and lowers what is left, in one transaction.
 */
export function settleCredits(credits: CreditNeed): CreditsSettled {
  return credits.need >= 0n ? use(credits) : takeBack(credits);
}
