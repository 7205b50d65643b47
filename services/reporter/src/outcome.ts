/** What one answer of Stripe to a meter event means for its ledger row: the total table of stripe.md 3.5. */

/** What came back. `lost`: no readable answer (timeout, reset, truncated body): the call may have been executed. */
export type AnswerKind = "accepted" | "duplicate" | "refused" | "unauthorised" | "throttled" | "failed" | "lost";

export interface Answer {
  readonly kind: AnswerKind;
  /** HTTP requests that went out for this call: the client repeats one after a reset, even with its retries off. */
  readonly networkAttempts: number;
  readonly requestId: string | null;
  /** Stripe's code or type, and its text: for operators; null when accepted. */
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  /** Whether the limiter, and not a lock on this pair, answered 429: then every sender of the account slows down. */
  readonly isLimiter: boolean;
}

/** What the row's past says, as it was before this call. */
export interface SendHistory {
  /** Whether an earlier call may have been executed (`doubt_since` was set before this one). */
  readonly hasDoubt: boolean;
  /** Whether Stripe ever refused the row (`refused_at`): identifiers of refused events may be remembered. */
  readonly wasRefused: boolean;
  /** Whether verification proved the row absent, and this was its one repeat (`verify_step` = 'resend'). */
  readonly isProvenAbsent: boolean;
}

export type OutcomeId = "O01" | "O02" | "O03" | "O04" | "O05" | "O06" | "O07" | "O08" | "O09";

export interface Transition {
  readonly outcome: OutcomeId;
  readonly state: "accepted" | "planned" | "unknown" | "rejected_sync";
  /** `keep`: a call may have been executed. `clear`: proven executed, or proven that none ever was. */
  readonly doubt: "clear" | "keep";
  /** A definitive answer (4xx but 409 and 429, or 5xx) may be stored under the key for 24 h: the next send takes a new one. */
  readonly raisesEpoch: boolean;
  readonly verifyStep: "none" | "check" | "resend" | "recheck";
  readonly isRefusal: boolean;
}

function transition(outcome: OutcomeId, state: Transition["state"], rest: Partial<Transition> = {}): Transition {
  return { outcome, state, doubt: "keep", raisesEpoch: false, verifyStep: "none", isRefusal: false, ...rest };
}

const ACCEPTED = transition("O01", "accepted", { doubt: "clear" });
const ACCEPTED_BEFORE = transition("O02", "accepted", { doubt: "clear", raisesEpoch: true });
const DUPLICATE_UNEXPLAINED = transition("O03", "unknown", { raisesEpoch: true, verifyStep: "check" });
const DUPLICATE_OF_ABSENT = transition("O03", "unknown", { raisesEpoch: true, verifyStep: "recheck" });
const REFUSED = transition("O04", "rejected_sync", { raisesEpoch: true, isRefusal: true });
const REFUSED_CLEAN = transition("O04", "rejected_sync", { doubt: "clear", raisesEpoch: true, isRefusal: true });
const STOPPED_CLEAN = transition("O05", "planned", { doubt: "clear", raisesEpoch: true });
const STOPPED_ABSENT = transition("O05", "unknown", { doubt: "clear", raisesEpoch: true, verifyStep: "resend" });
const STOPPED_IN_DOUBT = transition("O05", "unknown", { raisesEpoch: true });
const STOPPED_CHECK = transition("O05", "unknown", { raisesEpoch: true, verifyStep: "check" });
const NOT_EXECUTED = transition("O06", "planned", { doubt: "clear" });
const NOT_EXECUTED_ABSENT = transition("O06", "unknown", { doubt: "clear", verifyStep: "resend" });
const THROTTLED_IN_DOUBT = transition("O07", "unknown");
const THROTTLED_CHECK = transition("O07", "unknown", { verifyStep: "check" });
const FAILED = transition("O08", "unknown", { raisesEpoch: true });
const FAILED_CHECK = transition("O08", "unknown", { raisesEpoch: true, verifyStep: "check" });
const LOST = transition("O09", "unknown");
const LOST_CHECK = transition("O09", "unknown", { verifyStep: "check" });

/** `first`: this is the only request that ever went out for the row. `doubted`: another may have been executed before it. */
type Doubt = "first" | "doubted";
/** `absent` wins over `refused`: the proof is newer than the refusal. */
type Past = "fresh" | "refused" | "absent";

/** Every cell decided; a new answer or past does not compile until it is. */
const OUTCOMES: Record<AnswerKind, Record<Doubt, Record<Past, Transition>>> = {
  accepted: {
    first: { fresh: ACCEPTED, refused: ACCEPTED, absent: ACCEPTED },
    doubted: { fresh: ACCEPTED, refused: ACCEPTED, absent: ACCEPTED },
  },
  duplicate: {
    // Nobody sent this before: another writer, or a ledger restored from a backup. Only the summary knows.
    first: { fresh: DUPLICATE_UNEXPLAINED, refused: DUPLICATE_UNEXPLAINED, absent: DUPLICATE_OF_ABSENT },
    // A refused event's identifier may be remembered although it never counted: a duplicate proves nothing then.
    doubted: { fresh: ACCEPTED_BEFORE, refused: DUPLICATE_UNEXPLAINED, absent: DUPLICATE_OF_ABSENT },
  },
  refused: {
    first: { fresh: REFUSED_CLEAN, refused: REFUSED_CLEAN, absent: REFUSED_CLEAN },
    doubted: { fresh: REFUSED, refused: REFUSED, absent: REFUSED },
  },
  unauthorised: {
    first: { fresh: STOPPED_CLEAN, refused: STOPPED_CLEAN, absent: STOPPED_ABSENT },
    doubted: { fresh: STOPPED_IN_DOUBT, refused: STOPPED_IN_DOUBT, absent: STOPPED_CHECK },
  },
  throttled: {
    first: { fresh: NOT_EXECUTED, refused: NOT_EXECUTED, absent: NOT_EXECUTED_ABSENT },
    doubted: { fresh: THROTTLED_IN_DOUBT, refused: THROTTLED_IN_DOUBT, absent: THROTTLED_CHECK },
  },
  failed: {
    first: { fresh: FAILED, refused: FAILED, absent: FAILED_CHECK },
    doubted: { fresh: FAILED, refused: FAILED, absent: FAILED_CHECK },
  },
  // A proven-absent row is repeated once: after a lost answer the proof starts anew, or it could count twice beyond the
  // time for which Stripe remembers identifiers.
  lost: {
    first: { fresh: LOST, refused: LOST, absent: LOST_CHECK },
    doubted: { fresh: LOST, refused: LOST, absent: LOST_CHECK },
  },
};

/**
 * What to write for a row after an answer. Pure and total.
 *
 * A second network attempt counts as earlier doubt: an executed first attempt can hide behind a final 429.
 */
export function outcomeOf(answer: Pick<Answer, "kind" | "networkAttempts">, history: SendHistory): Transition {
  const doubt = history.hasDoubt || answer.networkAttempts > 1 ? "doubted" : "first";
  const past = history.isProvenAbsent ? "absent" : history.wasRefused ? "refused" : "fresh";
  return OUTCOMES[answer.kind][doubt][past];
}
