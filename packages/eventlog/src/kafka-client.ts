import { TallyhouseError } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import kafkajs, { type Kafka } from "kafkajs";
import { mendKafkajs } from "./kafkajs-mends.ts";

// The default import: Node finds only some of kafkajs's names in its CommonJS, and fails on the others.
const { logLevel } = kafkajs;
const CONNECTION_TIMEOUT_MS = 3_000;
/** A produce or fetch request without an answer by then is sent again. */
const REQUEST_TIMEOUT_MS = 10_000;
const LOCAL_HOSTS = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** How to reach a cluster. */
export interface KafkaClientOptions {
  /** `host:port`, at least one. */
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly logger?: Logger;
}

/**
 * Retries inside kafkajs. Always passed: its defaults differ under NODE_ENV=test. Three attempts in about a second; the
 * callers here have budgets of their own around them.
 */
export const KAFKA_RETRY = { retries: 2, initialRetryTime: 200, maxRetryTime: 1_000, factor: 0.2, multiplier: 2 };

/** The one way to make a kafkajs client. @throws {TallyhouseError} LOG_MISCONFIGURED (halt) for a wrong kafkajs. */
export function createKafka({ brokers, clientId, logger }: KafkaClientOptions): Kafka {
  mendKafkajs();
  return new kafkajs.Kafka({
    brokers: [...brokers],
    clientId,
    connectionTimeout: CONNECTION_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    retry: KAFKA_RETRY,
    logLevel: logger === undefined ? logLevel.NOTHING : logLevel.WARN,
    logCreator: () => (entry) => {
      const { message, ...fields } = entry.log;
      if (entry.level === logLevel.ERROR) logger?.error(fields, `kafkajs: ${message}`);
      else logger?.warn(fields, `kafkajs: ${message}`);
    },
  });
}

/** Whether compressing would only cost: no byte leaves this machine. */
export function isLocal(brokers: readonly string[]): boolean {
  return brokers.every((broker) => LOCAL_HOSTS.has(broker.slice(0, broker.lastIndexOf(":"))));
}

/** The cluster does not answer, or not in time. */
export function unavailable(message: string, cause?: unknown): TallyhouseError {
  return new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "retry", message, cause });
}

/** Whether the error or one of its causes is a broker's answer with one of these codes. */
export function hasProtocolCode(error: unknown, codes: ReadonlySet<unknown>): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ("code" in cause && codes.has(cause.code)) return true;
  }
  return false;
}
