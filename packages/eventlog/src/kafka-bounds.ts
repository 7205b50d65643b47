import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import type { LogBounds } from "@tallyhouse/domain";
import type { Admin } from "kafkajs";
import { unavailable } from "./kafka-client.ts";

const ATTEMPTS = 5;
const RETRY_PAUSE_MS = 300;

/** Asks the brokers what the partitions hold. Questions of one turn share one request; a later one never gets an older answer. */
export class KafkaBounds {
  readonly #admin: Admin;
  readonly #topic: string;
  #asked: Promise<ReadonlyMap<number, LogBounds>> | null = null;

  constructor(admin: Admin, topic: string) {
    this.#admin = admin;
    this.#topic = topic;
  }

  /** @throws {TallyhouseError} LOG_UNAVAILABLE (retry). */
  all(): Promise<ReadonlyMap<number, LogBounds>> {
    this.#asked ??= nextTurn().then(() => {
      this.#asked = null;
      return this.#fetch();
    });
    return this.#asked;
  }

  async of(partition: number): Promise<LogBounds> {
    const found = (await this.all()).get(partition);
    if (found === undefined) throw unavailable(`topic ${this.#topic} has no partition ${partition} at the moment`);
    return found;
  }

  async #fetch(): Promise<ReadonlyMap<number, LogBounds>> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const offsets = await this.#admin.fetchTopicOffsets(this.#topic);
        return new Map(
          offsets.map(({ partition, low, high }) => [
            partition,
            { earliestOffset: Number(low), endOffset: Number(high) },
          ]),
        );
      } catch (error) {
        if (attempt === ATTEMPTS) throw unavailable(`Kafka does not tell the bounds of topic ${this.#topic}`, error);
        await sleep(RETRY_PAUSE_MS);
        // A connection that broke while idle is not replaced by itself.
        await this.#admin.connect().catch(() => undefined);
      }
    }
  }
}
