import type { RecordMetadata } from "kafkajs";
import { expect, it } from "vitest";
import { checkProduceAnswer } from "./produce-answer.ts";

function answered(partition: number, rest: Partial<RecordMetadata> = {}): RecordMetadata {
  return { topicName: "usage", partition, errorCode: 0, baseOffset: "0", ...rest };
}

const sent = { topic: "usage", partitions: new Set([0, 3]) };

it("accepts one entry per partition sent", () => {
  expect(checkProduceAnswer(sent, [answered(3, { baseOffset: "9007199254740991" }), answered(0)])).toBeNull();
});

it("accepts a partition answered twice, after a resend to another leader", () => {
  expect(checkProduceAnswer(sent, [answered(0), answered(3), answered(3)])).toBeNull();
});

it("G1 refuses an answer that leaves out a partition, as kafkajs does for one that its metadata does not know", () => {
  expect(checkProduceAnswer(sent, [answered(0)])).toMatch(/partition 3/u);
  expect(checkProduceAnswer(sent, [])).toMatch(/partition 0, 3/u);
});

it("G1 refuses error codes, missing and negative offsets, and other topics", () => {
  expect(checkProduceAnswer(sent, [answered(0), answered(3, { errorCode: 7 })])).toMatch(/error code 7/u);
  expect(checkProduceAnswer(sent, [answered(0), answered(3, { baseOffset: "-1" })])).toMatch(/no offset/u);
  expect(checkProduceAnswer(sent, [answered(0), answered(3, { baseOffset: "x" })])).toMatch(/no offset/u);
  const { baseOffset, ...withoutOffset } = answered(3);
  expect(baseOffset).toBe("0");
  expect(checkProduceAnswer(sent, [answered(0), withoutOffset])).toMatch(/no offset/u);
  expect(checkProduceAnswer(sent, [answered(0), answered(3, { topicName: "other" })])).toMatch(/other/u);
});
