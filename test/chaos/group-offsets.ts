/** The committed offsets of the aggregators' group, as a hand or an expiry may leave them. Nothing may depend on them. */
import { until } from "@tallyhouse/testkit";
import kafkajs from "kafkajs";

/** See {@link openGroupOffsets}. */
export interface TopicOffsets {
  /** Lost, set to the log's start, or set to its end. The group must have no member, or gets none within 30 s. */
  move(how: "deleted" | "rewound" | "advanced"): Promise<void>;
  close(): Promise<void>;
}

/** The group is called like the topic. */
export async function openGroupOffsets(input: { brokers: string; topic: string }): Promise<TopicOffsets> {
  const { brokers, topic } = input;
  const kafka = new kafkajs.Kafka({
    brokers: [brokers],
    clientId: "chaos-offsets",
    logLevel: kafkajs.logLevel.NOTHING,
  });
  const admin = kafka.admin();
  await admin.connect();
  const moveOnce = async (how: "deleted" | "rewound" | "advanced"): Promise<boolean> => {
    if (how === "deleted") {
      const [result] = await admin.deleteGroups([topic]);
      return result?.errorCode === 0;
    }
    await admin.resetOffsets({ groupId: topic, topic, earliest: how === "rewound" });
    return true;
  };
  return {
    move: async (how) => {
      await until(() => moveOnce(how), { timeoutMs: 30_000, what: `the group's offsets are ${how}` });
    },
    close: () => admin.disconnect(),
  };
}
