/** One seeded schedule of the reporter: usage comes and goes, answers are lost, processes die; at the end Stripe has what we counted. */
import { type ControlStore, floorTo, HOUR_MS, MINUTE_MS, parseQuantity } from "@tallyhouse/domain";
import { Dice, settled, Violation, VirtualTime } from "@tallyhouse/testkit";
import type { StripeApi } from "../../stripe/stripe-api.ts";
import { createMemoryPipeline, startReporter } from "../../test-support.ts";
import { FakeStripe } from "./fake-stripe.ts";

const START = Date.UTC(2026, 10, 20, 10);
const CUSTOMERS = ["a", "b", "c"] as const;
const METERS = ["tokens", "requests"] as const;
const QUANTITIES = ["1", "0.000000001", "-2.5", "1234567890.123456789", "-0.1", "7"] as const;
/** Rounds of fair weather until nothing is open: back-off, two readings of every doubt and a day's memory fit many times. */
const ROUNDS_MAX = 60;
/** Calls of a life after which it dies, when it does. */
const LIFE_CALLS_MAX = 40;

/** What a schedule was, when nothing was violated. */
export interface ScheduleSummary {
  readonly records: number;
  readonly steps: number;
  readonly processes: number;
  /** How often each fault happened. */
  readonly hits: ReadonlyMap<string, number>;
}

/** The process is gone: every later call of it fails too, and its transactions roll back. */
class Death extends Error {}

/** Runs the schedule of the seed on an empty ledger. @throws {Violation} */
export async function runSchedule(
  seed: number,
  control: ControlStore,
  trace: (line: string) => void = () => {},
): Promise<ScheduleSummary> {
  const schedule = new ReporterSchedule(seed, control, trace);
  return schedule.run();
}

class ReporterSchedule {
  readonly #dice: Dice;
  readonly #time = new VirtualTime(START);
  readonly #control: ControlStore;
  readonly #trace: (line: string) => void;
  readonly #stripe: FakeStripe;
  readonly #pipeline: ReturnType<typeof createMemoryPipeline>;
  /** `meter customer hour` → what was used. */
  readonly #used = new Map<string, bigint>();
  readonly #hits = new Map<string, number>();
  #uses = 0;
  #calls = 0;
  #lives = 0;
  /** Calls of the ledger that are being answered: they take real time, in which nothing else may happen. */
  #working = 0;

  constructor(seed: number, control: ControlStore, trace: (line: string) => void) {
    this.#dice = new Dice(seed);
    this.#control = control;
    this.#trace = (line) => trace(`${this.#time.now() - START} ${line}`);
    this.#stripe = new FakeStripe(this.#dice, this.#time, {
      trace: this.#trace,
      count: (fault) => this.#count(fault),
    });
    this.#pipeline = createMemoryPipeline({ now: () => this.#time.now(), advance: () => undefined });
  }

  async run(): Promise<ScheduleSummary> {
    const dice = this.#dice;
    const failure = dice.pick([0.05, 0.2, 0.4]);
    for (const meter of METERS)
      await this.#pipeline.activate(meter, meter === "requests" ? { aggregation: "count" } : {});
    await this.#pipeline.progress(this.#time.now());
    for (let turn = dice.between(8, 20); turn > 0; turn -= 1) {
      this.#stripe.weather = { failure };
      for (let uses = dice.below(5); uses > 0; uses -= 1) await this.#use();
      if (dice.chance(0.7)) await this.#pipeline.progress(this.#time.now());
      await this.#live(dice.chance(0.5) ? dice.between(1, LIFE_CALLS_MAX) : null);
      const passMs = dice.pick([
        10_000,
        MINUTE_MS,
        10 * MINUTE_MS,
        HOUR_MS,
        dice.chance(0.2) ? 30 * HOUR_MS : MINUTE_MS,
      ]);
      this.#time.advanceTo(this.#time.now() + passMs);
    }
    await this.#settle();
    await this.#compare();
    return { records: this.#uses, steps: this.#calls, processes: this.#lives, hits: this.#hits };
  }

  #count(fault: string): void {
    this.#hits.set(fault, (this.#hits.get(fault) ?? 0) + 1);
  }

  async #use(): Promise<void> {
    const dice = this.#dice;
    const meter = dice.pick(METERS);
    const customer = dice.pick(CUSTOMERS);
    const quantity = meter === "requests" ? "1" : dice.pick(QUANTITIES);
    const at = this.#time.now() - dice.below(30) * HOUR_MS;
    await this.#pipeline.use([{ customer, at, quantity, meter }]);
    const key = `${meter} ${customer} ${floorTo(at, HOUR_MS)}`;
    this.#used.set(key, (this.#used.get(key) ?? 0n) + (parseQuantity(quantity) ?? 0n));
    this.#uses += 1;
    this.#trace(`use ${key} ${quantity}`);
  }

  /** One life: a round or two, which a death may end at any call. */
  async #live(diesAtCall: number | null): Promise<void> {
    this.#lives += 1;
    const ports = this.#mortal(diesAtCall);
    const restoreTimers = this.#time.install();
    try {
      const reporter = startReporter(
        { ...ports, clock: this.#time, random: () => this.#dice.share() },
        { STRIPE_API_URL: "http://127.0.0.1:1" },
      );
      try {
        for (let rounds = this.#dice.between(1, 2); rounds > 0; rounds -= 1) await this.#drive(reporter.runOnce());
      } catch (error) {
        if (!(error instanceof Death)) throw error;
        this.#trace(`died at ${error.message}`);
        this.#count(`died at ${error.message}`);
      }
      await reporter.close();
    } finally {
      restoreTimers();
    }
  }

  /** Lets the round go on; when it waits for time alone, time passes. */
  async #drive(round: Promise<unknown>): Promise<void> {
    let end: PromiseSettledResult<unknown> | null = null;
    void Promise.allSettled([round]).then(([settledRound]) => (end = settledRound));
    const ended = (): PromiseSettledResult<unknown> | null => end;
    for (;;) {
      await settled();
      const outcome = ended();
      if (outcome?.status === "fulfilled") return;
      if (outcome?.status === "rejected") throw outcome.reason;
      if (this.#working > 0) continue;
      const nextAt = this.#time.nextTimerAt();
      if (nextAt !== null) this.#time.advanceTo(nextAt);
    }
  }

  #mortal(diesAtCall: number | null) {
    let made = 0;
    let isDead = false;
    const step = async <Result>(name: string, effect: () => Promise<Result>): Promise<Result> => {
      if (isDead) throw new Death(name);
      made += 1;
      this.#calls += 1;
      const isLast = made === diesAtCall;
      const isBefore = isLast && this.#dice.chance(0.5);
      isDead = isLast;
      if (isBefore) throw new Death(`${name}, before`);
      const result = await effect();
      // Dead now, by this call or by another one meanwhile: no answer arrives.
      if (isDead) throw new Death(`${name}, after`);
      return result;
    };
    const worked = async <Result>(effect: () => Promise<Result>): Promise<Result> => {
      this.#working += 1;
      try {
        return await effect();
      } finally {
        this.#working -= 1;
      }
    };
    const control = this.#control;
    const { analytics } = this.#pipeline;
    const real = this.#stripe.api();
    const stripe: StripeApi = {
      send: (event) => step("send", () => real.send(event)),
      minuteTotal: (input) => step("minuteTotal", () => real.minuteTotal(input)),
      listMeters: () => step("listMeters", () => real.listMeters()),
      createMeter: (input) => step("createMeter", () => real.createMeter(input)),
      createCustomer: (input) => step("createCustomer", () => real.createCustomer(input)),
      listCustomersSince: (sinceAt) => step("listCustomers", () => real.listCustomersSince(sinceAt)),
      close: () => real.close(),
    };
    return {
      stripe: () => stripe,
      analytics: {
        ...analytics,
        select: <Row>(sql: string, params?: Readonly<Record<string, unknown>>) =>
          step("select", () => analytics.select<Row>(sql, params)),
      },
      control: {
        execute: (script: string) => control.execute(script),
        query: <Row>(sql: string, params?: readonly unknown[]) =>
          worked(() => step("query", () => control.query<Row>(sql, params))),
        transaction: <Result>(body: Parameters<typeof control.transaction<Result>>[0]) =>
          worked(() => step("transaction", () => control.transaction(body))),
      },
    };
  }

  /** Fair weather until no bucket waits and no row is open. */
  async #settle(): Promise<void> {
    this.#stripe.weather = { failure: 0 };
    for (let rounds = 0; rounds < ROUNDS_MAX; rounds += 1) {
      this.#stripe.landAll();
      // Beyond the lateness of every bucket that was used.
      this.#time.advanceTo(this.#time.now() + HOUR_MS);
      await this.#pipeline.progress(this.#time.now());
      await this.#live(null);
      const [row] = await this.#control.query<{ open: string }>(
        `SELECT ((SELECT count(*) FROM report_due) + (SELECT count(*) FROM usage_report
           WHERE state NOT IN ('accepted', 'confirmed', 'void', 'expired')))::text AS open`,
      );
      if (row?.open === "0") return;
    }
    const rows = await this.#control.query<{ state: string; verify_step: string; error_code: string | null }>(
      "SELECT state, verify_step, error_code FROM usage_report WHERE state NOT IN ('accepted', 'void', 'expired')",
    );
    throw new Violation("G5", `usage is never reported; open rows: ${JSON.stringify(rows)}`);
  }

  /** Per meter, customer and hour: what Stripe counted is what was used, and what the ledger says. */
  async #compare(): Promise<void> {
    const names = new Map([...this.#stripe.customers].map(([customer, id]) => [id, customer]));
    const counted = new Map<string, bigint>();
    for (const { event, value } of this.#stripe.counted) {
      const meter = event.eventName.replace(/^th_(.*)_v1$/, "$1");
      const key = `${meter} ${names.get(event.stripeCustomerId)} ${floorTo(event.eventAt, HOUR_MS)}`;
      counted.set(key, (counted.get(key) ?? 0n) + value);
    }
    for (const key of new Set([...this.#used.keys(), ...counted.keys()])) {
      const wanted = this.#used.get(key) ?? 0n;
      const found = counted.get(key) ?? 0n;
      if (wanted !== found) throw new Violation("G5", `${key}: Stripe counted ${found}, and ${wanted} was used`);
    }
  }
}
