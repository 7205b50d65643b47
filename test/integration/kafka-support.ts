import { randomUUID } from "node:crypto";
import { deleteTopic, ensureTopic, type KafkaLogOptions, openKafkaLog } from "@tallyhouse/eventlog";
import type { EventLogUnderTest } from "@tallyhouse/testkit";

/** Fails, never skips: a suite that did not run is not a suite that passed. */
export function kafkaBrokers(): string[] {
  const brokers = process.env["KAFKA_BROKERS"];
  if (brokers === undefined || brokers === "") {
    throw new Error("KAFKA_BROKERS is not set: run this through infra/local/run-with.ts --kafka");
  }
  return brokers.split(",");
}

/** Options of a log on a topic that no other test uses. */
export function freshLogOptions(brokers: readonly string[], partitionCount: number): KafkaLogOptions {
  const topic = `test.${randomUUID()}`;
  return { brokers, topic, partitionCount, groupId: topic, ownership: "fixed", clientId: "test" };
}

/** Makes the topic and opens the log on it. */
export async function openKafkaUnderTest(options: KafkaLogOptions): Promise<EventLogUnderTest> {
  await ensureTopic(options);
  let current = await openKafkaLog(options);
  return {
    opened: current,
    now: () => Date.now(),
    reopen: async () => {
      await current.close();
      current = await openKafkaLog(options);
      return current;
    },
    dispose: async () => {
      await current.close();
      await deleteTopic(options);
    },
  };
}
