/**
 * The load of a chaos run: usage events through both gateways and straight into Kafka, shuffled, with duplicates, conflicts and
 * records in wrong partitions. It remembers for each usage event whether it left and whether it was acknowledged; one of
 * unknown outcome is sent again until it is acknowledged, so that in the end every one must be counted exactly once.
 */
import { partitionOfKey, recordKeyOf } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { seededRandom } from "@tallyhouse/standalone/demo";
import kafkajs, { type Producer } from "kafkajs";
import { SOURCE, type UsageSource } from "./usage-source.ts";

const DUPLICATE_SHARE = 0.05;
const CONFLICT_SHARE = 0.001;
const MISPLACED_SHARE = 0.002;
/** Deliveries wait here and leave in any order. */
const POOL = 4_000;
const BATCH = 100;
const IN_FLIGHT_PER_ROUTE_MAX = 6;
const REQUEST_TIMEOUT_MS = 10_000;
/** A route that failed rests: a caller outside would back off too. */
const ROUTE_REST_MS = 300;
const IDLE_MS = 5;
const TRICKLE = 0.1;
/** Beyond this many uncounted usage events the load waits: what is measured is recovery, not a growing backlog. */
const BACKLOG_MAX = 50_000;

const UNSENT = 0;
const SENT = 1;
const ACKNOWLEDGED = 2;

interface Delivery {
  readonly number: number;
  readonly kind: "plain" | "conflict" | "misplaced";
}

interface Route {
  readonly name: string;
  inFlight: number;
  restsUntil: number;
  /** False: the outcome is unknown. */
  send(batch: readonly Delivery[]): Promise<boolean>;
}

/** Counts of what left. */
export interface LoadFigures {
  sent: number;
  acknowledged: number;
  duplicates: number;
  conflicts: number;
  misplaced: number;
  resent: number;
  unknownBatches: number;
}

/** What a load sends to and how fast. */
export interface LoadInput {
  readonly source: UsageSource;
  readonly gatewayUrls: readonly string[];
  readonly token: string;
  readonly brokers: string;
  readonly topic: string;
  readonly partitionCount: number;
  readonly seed: number;
  readonly ratePerSecond: number;
  /** Usage events in the log that are not counted yet, as far as known. */
  readonly backlog: () => number;
}

/** Usage events are numbered from 0; {@link ChaosLoad.made} of them exist so far. */
export class ChaosLoad {
  readonly figures: LoadFigures = {
    sent: 0,
    acknowledged: 0,
    duplicates: 0,
    conflicts: 0,
    misplaced: 0,
    resent: 0,
    unknownBatches: 0,
  };
  readonly #input: LoadInput;
  readonly #random: () => number;
  readonly #producer: Producer;
  readonly #routes: readonly Route[];
  readonly #pool: Delivery[] = [];
  #state = new Uint8Array(65_536);
  #made = 0;
  #limit = 0;
  /** Answers that should not be: they end the run. */
  readonly refusals: string[] = [];

  private constructor(input: LoadInput, producer: Producer) {
    this.#input = input;
    this.#random = seededRandom(input.seed);
    this.#producer = producer;
    const route = (name: string, send: Route["send"]): Route => ({ name, inFlight: 0, restsUntil: 0, send });
    this.#routes = [
      ...input.gatewayUrls.map((url) => route(url, async (batch) => this.#post(url, batch))),
      route("kafka", async (batch) => this.#produce(batch)),
    ];
  }

  static async open(input: LoadInput): Promise<ChaosLoad> {
    const kafka = new kafkajs.Kafka({
      brokers: [input.brokers],
      clientId: "chaos-producer",
      logLevel: kafkajs.logLevel.NOTHING,
      requestTimeout: REQUEST_TIMEOUT_MS,
      retry: { retries: 2 },
    });
    // The partitioner of kafkajs, so that no code of ours is in the way.
    const producer = kafka.producer({
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      allowAutoTopicCreation: false,
    });
    await producer.connect();
    return new ChaosLoad(input, producer);
  }

  /** Usage events [0, made) exist. */
  get made(): number {
    return this.#made;
  }

  /** Up to this number of usage events the load keeps its rate; beyond, only enough goes on for a fault to meet some. */
  allow(limit: number): void {
    this.#limit = limit;
  }

  /** A usage event that was answered, chosen at random. */
  pickAcknowledged(random: () => number): number | null {
    const number = Math.floor(random() * this.#made);
    return this.#state[number] === ACKNOWLEDGED ? number : null;
  }

  /** Numbers of the usage events that are not acknowledged. */
  unacknowledged(): number[] {
    const numbers: number[] = [];
    for (let number = 0; number < this.#made; number += 1)
      if (this.#state[number] !== ACKNOWLEDGED) numbers.push(number);
    return numbers;
  }

  /** Sends at the rate until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { ratePerSecond, backlog } = this.#input;
    let credit = 0;
    let lastAt = performance.now();
    while (!signal.aborted) {
      const now = performance.now();
      // Bounded: time in which nothing could be sent is not made up for by a burst.
      const ratePerMs = (this.#made < this.#limit ? ratePerSecond : ratePerSecond * TRICKLE) / 1_000;
      credit = Math.min(credit + (now - lastAt) * ratePerMs, ratePerSecond / 2);
      lastAt = now;
      const route = credit >= BATCH && backlog() < BACKLOG_MAX ? this.#freeRoute(now) : null;
      if (route === null) {
        // time passes here: the rate of the load.
        await pause(IDLE_MS, signal);
        continue;
      }
      this.#fillPool();
      const batch = this.#take(BATCH);
      credit -= batch.length;
      void this.#dispatch(route, batch);
    }
  }

  /** Sends what is left, until everything made is acknowledged and nothing is in flight. */
  async settle(timeoutMs: number): Promise<void> {
    const endsAt = performance.now() + timeoutMs;
    const isDone = (): boolean =>
      this.#pool.length === 0 &&
      this.#routes.every(({ inFlight }) => inFlight === 0) &&
      this.unacknowledged().length === 0;
    while (!isDone()) {
      if (performance.now() > endsAt)
        throw new Error(`${this.unacknowledged().length} usage events stay unacknowledged`);
      const route = this.#freeRoute(performance.now());
      const batch = route === null ? [] : this.#take(BATCH);
      if (route === null || batch.length === 0) {
        // time passes here: answers are on their way.
        await pause(IDLE_MS);
        continue;
      }
      void this.#dispatch(route, batch);
    }
  }

  async close(): Promise<void> {
    await this.#producer.disconnect();
  }

  #freeRoute(now: number): Route | null {
    const free = this.#routes.filter((route) => route.inFlight < IN_FLIGHT_PER_ROUTE_MAX && route.restsUntil < now);
    return free[Math.floor(this.#random() * free.length)] ?? null;
  }

  #fillPool(): void {
    while (this.#pool.length < POOL) {
      const number = this.#made;
      this.#made += 1;
      if (number >= this.#state.length) {
        const larger = new Uint8Array(this.#state.length * 2);
        larger.set(this.#state);
        this.#state = larger;
      }
      this.#pool.push({ number, kind: "plain" });
      if (this.#random() < DUPLICATE_SHARE) this.#pool.push({ number: this.#pastNumber(), kind: "plain" });
      if (this.#random() < CONFLICT_SHARE) this.#pushAcknowledged("conflict");
      if (this.#random() < MISPLACED_SHARE) this.#pushAcknowledged("misplaced");
    }
  }

  #pastNumber(): number {
    return Math.floor(this.#random() * this.#made);
  }

  /**
   * A conflict, or a copy in a wrong partition, of a usage event that is acknowledged: its offset is higher then, so that the
   * original is the one that counts.
   */
  #pushAcknowledged(kind: "conflict" | "misplaced"): void {
    const number = this.#pastNumber();
    if (this.#state[number] === ACKNOWLEDGED) this.#pool.push({ number, kind });
  }

  #take(count: number): Delivery[] {
    const batch: Delivery[] = [];
    while (batch.length < count && this.#pool.length > 0) {
      const index = Math.floor(this.#random() * this.#pool.length);
      const [last, chosen] = [this.#pool.pop() as Delivery, this.#pool[index]];
      if (chosen === undefined) {
        batch.push(last);
        continue;
      }
      this.#pool[index] = last;
      batch.push(chosen);
    }
    return batch;
  }

  async #dispatch(route: Route, batch: readonly Delivery[]): Promise<void> {
    route.inFlight += 1;
    for (const { number, kind } of batch) this.#noteSent(number, kind);
    const isAcknowledged = await route.send(batch).catch(() => false);
    route.inFlight -= 1;
    if (!isAcknowledged) {
      route.restsUntil = performance.now() + ROUTE_REST_MS;
      this.figures.unknownBatches += 1;
    }
    for (const delivery of batch) {
      if (delivery.kind !== "plain") continue;
      if (!isAcknowledged) this.#pool.push(delivery);
      else if (this.#state[delivery.number] !== ACKNOWLEDGED) {
        this.#state[delivery.number] = ACKNOWLEDGED;
        this.figures.acknowledged += 1;
      }
    }
  }

  #noteSent(number: number, kind: Delivery["kind"]): void {
    const { figures } = this;
    if (kind === "conflict") figures.conflicts += 1;
    else if (kind === "misplaced") figures.misplaced += 1;
    else if (this.#state[number] === UNSENT) {
      this.#state[number] = SENT;
      figures.sent += 1;
    } else if (this.#state[number] === ACKNOWLEDGED) figures.duplicates += 1;
    else figures.resent += 1;
  }

  #text({ number, kind }: Delivery): string {
    return this.#input.source.text(number, kind === "conflict");
  }

  async #post(url: string, batch: readonly Delivery[]): Promise<boolean> {
    const answer = await fetch(`${url}/v1/events`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${this.#input.token}`,
        "content-type": "application/cloudevents-batch+json",
      },
      body: `[${batch.map((delivery) => this.#text(delivery)).join(",")}]`,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    const text = await answer.text();
    if (answer.status === 202) {
      const { rejected } = JSON.parse(text) as { rejected: number };
      if (rejected > 0) this.refusals.push(text.slice(0, 500));
      return rejected === 0;
    }
    // Every other answer than an outage is a fault of the product or of this client.
    if (answer.status !== 503 && answer.status !== 429) this.refusals.push(`${answer.status} ${text.slice(0, 500)}`);
    return false;
  }

  /** Acknowledged only when every partition that got records answers with an offset. */
  async #produce(batch: readonly Delivery[]): Promise<boolean> {
    const { topic, partitionCount, source } = this.#input;
    const partitions = new Set<number>();
    const messages = batch.map((delivery) => {
      const { id, customer } = source.usage(delivery.number);
      const key = recordKeyOf({ mode: "live", customer, source: SOURCE, id });
      const place = partitionOfKey(key, partitionCount);
      const value = this.#text(delivery).replace("{", '{"mode":"live",');
      const partition = delivery.kind === "misplaced" ? (place + 1) % partitionCount : place;
      partitions.add(partition);
      return delivery.kind === "misplaced" ? { key, value, partition } : { key, value };
    });
    const answer = await this.#producer.send({ topic, acks: -1, messages });
    return [...partitions].every((partition) =>
      answer.some((row) => row.partition === partition && row.errorCode === 0 && Number(row.baseOffset ?? -1) >= 0),
    );
  }
}
