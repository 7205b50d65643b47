import { type ControlStore, DAY_MS, HOUR_MS } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { AccountKey } from "./account.ts";
import type { Backoff } from "./backoff.ts";
import { idempotencyKeyOf } from "./identifier.ts";
import { pairKeyOf, type SendableRow } from "./ledger-row.ts";
import { type Answer, type OutcomeId, outcomeOf } from "./outcome.ts";
import type { Pacer } from "./pacer.ts";
import {
  demandVerification,
  recoverSending,
  retireRows,
  sendableRows,
  type SendCursor,
  type SendResult,
  settleAndMark,
} from "./send-ledger.ts";
import type { StripeApi } from "./stripe/stripe-api.ts";

/** Rows of one page; all of them are sent before the next is read, so a pair's rows keep their order across pages. */
const PAGE_ROWS_MAX = 2_000;
/** Rows marked by one transaction: so many can be in doubt after a crash, beside those in flight. */
const MARK_ROWS_MAX = 100;
/** Answers and permissions are gathered this long between transactions, unless half of the calls answered. */
const GATHER_MS = 100;
/** How long a stop waits for calls in flight; what has no answer by then is found in `sending` at the next start. */
const STOP_WAIT_MS = 5_000;
/** A sender that wakes up so long after marking its rows was suspended: it must look at the row again before calling. */
const MARK_AGE_MAX_MS = 60_000;
/** Stripe remembers identifiers and keys for at least 24 hours: an hour before, a repeat needs proof first. */
const REPEAT_AGE_MAX_MS = 23 * HOUR_MS;
/** Half a day beyond the age for planning, half a day before Stripe's 35 days: rows planned at the edge are still sent. */
const SEND_AGE_MAX_MS = 34 * DAY_MS + 12 * HOUR_MS;
/** After 401 or 403 the whole account rests: every further call would be answered the same way. */
const STOPPED_MS = 300_000;
/** The longest rest that the limiter's 429 asks of the whole account; drawn with full jitter. */
const LIMITER_REST_MAX_MS = 1_000;

/** What one round of sending did. */
export interface SendSummary {
  sent: number;
  accepted: number;
  readonly outcomes: Map<OutcomeId, number>;
  networkAttempts: number;
  retired: number;
  verificationsDemanded: number;
}

export interface SendContext {
  readonly account: AccountKey;
  readonly stripe: StripeApi;
  readonly control: ControlStore;
  readonly pacer: Pacer;
  readonly backoff: Backoff;
  readonly clock: Clock;
  readonly random: () => number;
  readonly concurrencyMax: number;
  /** Set by an answer that stops the account; epoch milliseconds until which nothing is sent. */
  readonly stop: { untilAt: number };
  /** No page is begun after this instant: planning is due again, and a long backlog must not keep it waiting. */
  readonly pagesUntilAt: number;
}

/**
 * Sends every row that may be sent now, once each. Rows of one pair go one after another in the order of their minutes, and
 * stop at the first that is not accepted; pairs do not wait for each other.
 * @throws what the control store throws, after every call in flight has ended: their rows are then in `sending`, and the next
 *   round recovers them.
 */
export async function sendRound(context: SendContext, signal: AbortSignal): Promise<SendSummary> {
  const { control, account } = context;
  const summary: SendSummary = {
    sent: 0,
    accepted: 0,
    outcomes: new Map(),
    networkAttempts: 0,
    retired: 0,
    verificationsDemanded: 0,
  };
  await recoverSending(control, account);
  let after: SendCursor | null = null;
  while (!signal.aborted && context.clock.now() >= context.stop.untilAt) {
    if (after !== null && context.clock.now() >= context.pagesUntilAt) break;
    const page = await sendableRows(control, { account, after, limit: PAGE_ROWS_MAX });
    const last = page.at(-1);
    if (last === undefined) break;
    after = { eventAt: last.eventAt, id: last.id };
    const rows = await selectRows(context, page, summary);
    await new PageSender(context, summary).send(rows, signal);
  }
  return summary;
}

/** Leaves out, and writes down, rows too old to send or to repeat unproven; their pairs wait for the next round. */
async function selectRows(
  context: SendContext,
  page: readonly SendableRow[],
  summary: SendSummary,
): Promise<SendableRow[]> {
  const nowAt = context.clock.now();
  const expired = new Set<string>();
  const unproven = new Set<string>();
  const heldPairs = new Set<string>();
  const rows: SendableRow[] = [];
  for (const row of page) {
    const isTooOld = row.eventAt <= nowAt - SEND_AGE_MAX_MS;
    const isRepeat = row.firstAttemptAt !== null && row.verifyStep === "none";
    if (isTooOld && (row.verifyStep === "resend" || (row.state === "planned" && !row.hasDoubt))) expired.add(row.id);
    else if (isTooOld || (isRepeat && nowAt - (row.firstAttemptAt ?? nowAt) >= REPEAT_AGE_MAX_MS)) unproven.add(row.id);
    else if (context.backoff.isWaiting(row.id)) heldPairs.add(pairKeyOf(row));
    else if (!heldPairs.has(pairKeyOf(row))) rows.push(row);
    if (unproven.has(row.id)) heldPairs.add(pairKeyOf(row));
  }
  await context.control.transaction((tx) =>
    retireRows(tx, { account: context.account, rowIds: [...expired], state: "expired" }),
  );
  await demandVerification(context.control, [...unproven]);
  summary.retired += expired.size;
  summary.verificationsDemanded += unproven.size;
  return rows;
}

/** Sends one page: marks, calls and settles in overlapping batches. */
class PageSender {
  readonly #context: SendContext;
  readonly #summary: SendSummary;
  /** Rows of each pair still to send; only the first of a ready pair may be marked. */
  readonly #lanes = new Map<string, SendableRow[]>();
  #ready: string[] = [];
  #results: SendResult[] = [];
  #inFlight = 0;
  #failure: { readonly error: unknown } | null = null;
  #steppedAt = 0;
  #isAborted = false;
  #isGraceOver = false;
  #wake: () => void = () => undefined;

  constructor(context: SendContext, summary: SendSummary) {
    this.#context = context;
    this.#summary = summary;
  }

  async send(rows: readonly SendableRow[], signal: AbortSignal): Promise<void> {
    for (const row of rows) {
      const pair = pairKeyOf(row);
      const lane = this.#lanes.get(pair);
      if (lane === undefined) this.#ready.push(pair);
      this.#lanes.set(pair, [...(lane ?? []), row]);
    }
    let graceTimer: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      this.#isAborted = true;
      graceTimer = setTimeout(() => {
        this.#isGraceOver = true;
        this.#wake();
      }, STOP_WAIT_MS);
      this.#wake();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      await this.#sendAll();
    } finally {
      // Never two calls for one pair: the next round may not begin while one of this is in flight.
      while (this.#inFlight > 0 && !this.#isGraceOver) await this.#sleep(null);
      signal.removeEventListener("abort", onAbort);
      clearTimeout(graceTimer);
    }
  }

  async #sendAll(): Promise<void> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure.error;
      if (this.#isAborted || this.#context.clock.now() < this.#context.stop.untilAt) this.#ready = [];
      const isWaiting = this.#inFlight > 0 && !this.#isGraceOver;
      if (!isWaiting && this.#ready.length === 0 && this.#results.length === 0) return;
      const waitMs = this.#isGraceOver ? 0 : this.#nextStepInMs();
      if (waitMs === 0) await this.#step();
      else await this.#sleep(waitMs);
    }
  }

  /** Calls that may be started: answers not yet written still occupy their place, so that both are written together. */
  #room(): number {
    const free = this.#context.concurrencyMax - this.#inFlight - this.#results.length;
    return Math.max(0, Math.min(MARK_ROWS_MAX, free, this.#ready.length));
  }

  /** When a transaction is worth it: now, after so many milliseconds, or null: only an answer can bring work. */
  #nextStepInMs(): number | null {
    const { pacer } = this.#context;
    const gatherMs = Math.max(0, this.#steppedAt + GATHER_MS - performance.now());
    const waits: number[] = [];
    if (this.#results.length > 0) waits.push(this.#results.length >= this.#inFlight ? 0 : gatherMs);
    const room = this.#room();
    if (room > 0) waits.push(Math.min(pacer.waitMs(room), Math.max(gatherMs, pacer.waitMs(1))));
    return waits.length === 0 ? null : Math.ceil(Math.min(...waits));
  }

  #sleep(waitMs: number | null): Promise<void> {
    return new Promise((resolve) => {
      const timer = waitMs === null ? undefined : setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One transaction: what came back, and what goes out next. */
  async #step(): Promise<void> {
    const { control, clock, pacer } = this.#context;
    const results = this.#results;
    this.#results = [];
    const room = this.#room();
    // Permissions are taken before the mark, so that no row waits in `sending` for its turn.
    const granted = room === 0 ? 0 : pacer.take(room);
    const next = this.#ready.splice(0, granted).flatMap((pair) => this.#lanes.get(pair)?.shift() ?? []);
    const markedAt = clock.now();
    await control.transaction((tx) => settleAndMark(tx, { results, next, nowAt: markedAt }));
    this.#steppedAt = performance.now();
    for (const result of results) this.#afterSettled(result);
    for (const row of next) void this.#call(row, markedAt);
  }

  /** Never rejects: what the port throws (a bug, never an answer) is thrown by the loop. */
  async #call(row: SendableRow, markedAt: number): Promise<void> {
    const { clock, stripe } = this.#context;
    this.#inFlight += 1;
    try {
      const answer =
        clock.now() - markedAt > MARK_AGE_MAX_MS
          ? OVERSLEPT
          : await stripe.send({
              eventName: row.eventName,
              stripeCustomerId: row.stripeCustomerId,
              value: row.value,
              identifier: row.identifier,
              idempotencyKey: idempotencyKeyOf(row.identifier, row.idemEpoch),
              eventAt: row.eventAt,
            });
      const transition = outcomeOf(answer, {
        hasDoubt: row.hasDoubt,
        wasRefused: row.wasRefused,
        isProvenAbsent: row.verifyStep === "resend",
      });
      this.#results.push({ row, answer, transition });
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#inFlight -= 1;
      this.#wake();
    }
  }

  #afterSettled({ row, answer, transition }: SendResult): void {
    const { backoff, stop, clock, pacer, random } = this.#context;
    const summary = this.#summary;
    summary.sent += 1;
    summary.networkAttempts += answer.networkAttempts;
    summary.outcomes.set(transition.outcome, (summary.outcomes.get(transition.outcome) ?? 0) + 1);
    if (transition.outcome === "O05") stop.untilAt = clock.now() + STOPPED_MS;
    if (answer.isLimiter) pacer.hold(random() * LIMITER_REST_MAX_MS);
    const isRepeated =
      transition.state === "planned" ||
      (transition.state === "unknown" && (transition.verifyStep === "none" || transition.verifyStep === "resend"));
    if (isRepeated) backoff.failed(row.id);
    else backoff.forget(row.id);
    if (transition.state !== "accepted") return;
    summary.accepted += 1;
    // Only after its predecessor's fate is known and written may the pair's next row follow.
    const pair = pairKeyOf(row);
    if ((this.#lanes.get(pair)?.length ?? 0) > 0) this.#ready.push(pair);
  }
}

/** Nothing left this process, so an earlier doubt stays what it was. */
const OVERSLEPT: Answer = {
  kind: "throttled",
  networkAttempts: 0,
  requestId: null,
  errorCode: "overslept",
  errorMessage: "the sender was suspended between marking the row and calling",
  isLimiter: false,
};
