import type { RecordMetadata } from "kafkajs";

/**
 * Whether a produce answer acknowledges every partition sent: one entry each, errorCode 0, baseOffset ≥ 0. kafkajs drops
 * records of a partition that its cached metadata does not know and resolves all the same.
 * @returns `null`, or what is missing, for a message.
 */
export function checkProduceAnswer(
  sent: { readonly topic: string; readonly partitions: ReadonlySet<number> },
  answer: readonly RecordMetadata[],
): string | null {
  const missing = new Set(sent.partitions);
  for (const { topicName, partition, errorCode, baseOffset } of answer) {
    if (topicName !== sent.topic) return `the answer names topic ${topicName}`;
    if (errorCode !== 0) return `partition ${partition} answered error code ${errorCode}`;
    if (baseOffset === undefined || !(Number(baseOffset) >= 0)) return `partition ${partition} answered no offset`;
    missing.delete(partition);
  }
  return missing.size === 0 ? null : `no answer for partition ${[...missing].join(", ")}`;
}
