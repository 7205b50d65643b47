/** A small Stripe in memory, whose every answer the schedule chooses: lost, late, stored under a key, executed or not. */
import { HOUR_MS, MINUTE_MS, parseQuantity } from "@tallyhouse/domain";
import { type Dice, Violation } from "@tallyhouse/testkit";
import type { Answer, AnswerKind } from "../../outcome.ts";
import type { StripeApi, StripeMeter } from "../../stripe/stripe-api.ts";

/** How long identifiers and idempotency keys are remembered: as long as Stripe promises, and no longer. */
const MEMORY_MS = 24 * HOUR_MS;
/** Accepted events are counted within this time; the summary lags no more. */
const COUNT_LAG_MAX_MS = 4 * MINUTE_MS;
/** A request that was given up reaches its end within this time. */
const LATE_MAX_MS = 2 * MINUTE_MS;

type MeterEvent = Parameters<StripeApi["send"]>[0];

interface CountedEvent {
  readonly event: MeterEvent;
  readonly value: bigint;
  readonly countsFromAt: number;
}

/** How likely a call goes wrong. */
export interface StripeWeather {
  readonly failure: number;
}

/** The other side of the reporter. Everything it has counted is kept, so that the schedule can compare. */
export class FakeStripe {
  weather: StripeWeather = { failure: 0 };
  readonly counted: CountedEvent[] = [];
  readonly customers = new Map<string, string>();
  readonly #dice: Dice;
  readonly #clock: { now(): number };
  readonly #trace: (line: string) => void;
  readonly #count: (fault: string) => void;
  readonly #meters = new Map<string, StripeMeter>();
  /** identifier → when it was taken. */
  readonly #identifiers = new Map<string, number>();
  /** Idempotency key → the answer stored under it. */
  readonly #keys = new Map<string, { readonly at: number; readonly kind: AnswerKind }>();
  readonly #created = new Map<string, string>();
  #late: { readonly dueAt: number; readonly event: MeterEvent }[] = [];

  constructor(
    dice: Dice,
    clock: { now(): number },
    notes: { trace: (line: string) => void; count: (fault: string) => void },
  ) {
    this.#dice = dice;
    this.#clock = clock;
    this.#trace = notes.trace;
    this.#count = notes.count;
  }

  /** The port of one reporter. */
  api(): StripeApi {
    return {
      send: (event) => this.#send(event),
      minuteTotal: async ({ stripeMeterId, stripeCustomerId, minuteAt }) => {
        if (this.#fails()) return { kind: "failed", message: "the summary is not there" };
        this.#landLate();
        const now = this.#clock.now();
        const eventName = [...this.#meters.values()].find(({ id }) => id === stripeMeterId)?.eventName;
        const found = this.counted.filter(
          ({ event, countsFromAt }) =>
            event.eventName === eventName &&
            event.stripeCustomerId === stripeCustomerId &&
            event.eventAt === minuteAt &&
            countsFromAt <= now,
        );
        const sum = found.reduce((total, { value }) => total + value, 0n);
        return { kind: "done", value: Number(sum) / 1e9 };
      },
      listMeters: async () =>
        this.#fails() ? { kind: "lost", message: "no answer" } : { kind: "done", value: [...this.#meters.values()] },
      createMeter: (input) => this.#createMeter(input),
      createCustomer: (input) => this.#createCustomer(input),
      listCustomersSince: async () =>
        this.#fails() ? { kind: "lost", message: "no answer" } : { kind: "done", value: new Map(this.customers) },
      close: () => undefined,
    };
  }

  /** Requests that were given up and are still on their way arrive. */
  landAll(): void {
    for (const { event, dueAt } of this.#late.splice(0)) this.#execute(event, Math.min(dueAt, this.#clock.now()));
  }

  async #send(event: MeterEvent): Promise<Answer> {
    this.#landLate();
    const now = this.#clock.now();
    const stored = this.#keys.get(event.idempotencyKey);
    if (stored !== undefined && now - stored.at < MEMORY_MS) return this.#answer(event, stored.kind);
    if (!this.#fails()) return this.#answer(event, this.#store(event, this.#execute(event)));
    const fate = this.#dice.pick([
      "lost before",
      "lost after",
      "lost late",
      "failed",
      "failed after",
      "throttled",
    ] as const);
    this.#count(`send: ${fate}`);
    switch (fate) {
      case "lost after":
        this.#store(event, this.#execute(event));
        break;
      case "lost late":
        this.#late.push({ dueAt: now + this.#dice.below(LATE_MAX_MS), event });
        break;
      case "failed":
        return this.#answer(event, this.#store(event, "failed"));
      case "failed after":
        this.#execute(event);
        return this.#answer(event, this.#store(event, "failed"));
      case "throttled":
        return { ...this.#answer(event, "throttled"), isLimiter: this.#dice.chance(0.5) };
      case "lost before":
        break;
    }
    this.#trace(`stripe ${fate}`);
    return this.#answer(event, "lost");
  }

  #store(event: MeterEvent, kind: AnswerKind): AnswerKind {
    this.#keys.set(event.idempotencyKey, { at: this.#clock.now(), kind });
    return kind;
  }

  /** What the call does, if anything. */
  #execute(event: MeterEvent, now = this.#clock.now()): "accepted" | "duplicate" {
    const takenAt = this.#identifiers.get(event.identifier);
    if (takenAt !== undefined && now - takenAt < MEMORY_MS) return "duplicate";
    if (this.counted.some(({ event: { identifier } }) => identifier === event.identifier))
      throw new Violation(
        "G2",
        `${event.identifier} is counted a second time, ${now - (takenAt ?? 0)} ms after the first`,
      );
    const value = parseQuantity(event.value);
    if (value === null) throw new Violation("G4", `${event.value} is no quantity`);
    this.#identifiers.set(event.identifier, now);
    this.counted.push({ event, value, countsFromAt: now + this.#dice.below(COUNT_LAG_MAX_MS) });
    return "accepted";
  }

  #landLate(): void {
    const now = this.#clock.now();
    const due = this.#late.filter(({ dueAt }) => dueAt <= now);
    this.#late = this.#late.filter(({ dueAt }) => dueAt > now);
    // As of then: nobody looked in between.
    for (const { event, dueAt } of due) this.#execute(event, dueAt);
  }

  #answer(event: MeterEvent, kind: AnswerKind): Answer {
    this.#trace(`stripe ${kind} ${event.identifier} ${event.value}`);
    this.#count(`answer: ${kind}`);
    const errorCode = kind === "accepted" ? null : kind;
    return { kind, networkAttempts: 1, requestId: null, errorCode, errorMessage: errorCode, isLimiter: false };
  }

  async #createMeter(input: Parameters<StripeApi["createMeter"]>[0]): ReturnType<StripeApi["createMeter"]> {
    const isUnseen = this.#fails();
    if (isUnseen && this.#dice.chance(0.5)) return { kind: "lost", message: "no answer" };
    const known = this.#meters.get(input.eventName);
    const meter = known ?? {
      id: `mtr_${this.#meters.size + 1}`,
      eventName: input.eventName,
      isActive: true,
      formula: "sum",
      customerKey: "stripe_customer_id",
      valueKey: "value",
      hasTimeWindow: false,
    };
    this.#meters.set(input.eventName, meter);
    return isUnseen ? { kind: "lost", message: "no answer" } : { kind: "done", value: meter };
  }

  async #createCustomer(input: Parameters<StripeApi["createCustomer"]>[0]): ReturnType<StripeApi["createCustomer"]> {
    const isUnseen = this.#fails();
    if (isUnseen && this.#dice.chance(0.5)) return { kind: "lost", message: "no answer" };
    const known = this.#created.get(input.idempotencyKey);
    if (known === undefined && this.customers.has(input.customerId))
      throw new Violation("G5", `${input.customerId} becomes two customers of Stripe`);
    const id = known ?? `cus_${this.#created.size + 1}`;
    this.#created.set(input.idempotencyKey, id);
    this.customers.set(input.customerId, id);
    return isUnseen ? { kind: "lost", message: "no answer" } : { kind: "done", value: id };
  }

  #fails(): boolean {
    return this.#dice.chance(this.weather.failure);
  }
}
