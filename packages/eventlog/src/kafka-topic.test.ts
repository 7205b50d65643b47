import { expect, it } from "vitest";
import { topicProblems } from "./kafka-topic.ts";

const wanted = { topic: "usage", partitionCount: 2 };
const right: Record<string, string> = {
  "message.timestamp.type": "LogAppendTime",
  "cleanup.policy": "delete",
  "compression.type": "zstd",
  "retention.ms": "604800000",
  "max.message.bytes": "1048588",
  "min.insync.replicas": "2",
};

function problems(change: Record<string, string>, replicaCounts = [3, 3]): string[] {
  return topicProblems(wanted, { replicaCounts, configs: new Map(Object.entries({ ...right, ...change })) });
}

it("accepts a topic that keeps the log contract", () => {
  expect(problems({})).toEqual([]);
  expect(problems({ "retention.ms": "-1", "compression.type": "gzip" })).toEqual([]);
});

it("names each setting that breaks it", () => {
  const wrong: [string, string][] = [
    ["message.timestamp.type", "CreateTime"],
    ["cleanup.policy", "compact"],
    ["cleanup.policy", "compact,delete"],
    ["compression.type", "producer"],
    ["compression.type", "snappy"],
    ["retention.ms", "604799999"],
    ["max.message.bytes", "999999"],
    ["min.insync.replicas", "4"],
  ];
  for (const [name, value] of wrong)
    expect(problems({ [name]: value })).toEqual([expect.stringContaining(`${name} is ${value}`)]);
});

it("names all faults at once, the partition and replica counts among them", () => {
  const found = problems({ "cleanup.policy": "compact", "min.insync.replicas": "2" }, [1, 1, 1]);
  expect(found).toHaveLength(3);
  expect(found[0]).toBe("it has 3 partitions and the stream has 2");
  expect(found[2]).toMatch(/at most 1, its replica count/u);
});
