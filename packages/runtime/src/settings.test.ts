import { controlKeyOf } from "@tallyhouse/domain";
import { expect, test } from "vitest";
import { parseConfig } from "./config.ts";
import { controlKeysOf, SharedSettingsSchema, streamOf } from "./settings.ts";

const needed = {
  KAFKA_BROKERS: "one:9092, two:9092",
  STREAM_HASH_SEED: "00112233445566778899aabbccddeeff",
  CONTROL_SIGNING_KEY: "k".repeat(32),
  TOKEN_PEPPER: "ab".repeat(32),
  CLICKHOUSE_URL: "http://default@clickhouse:8123/usage",
  POSTGRES_URL: "postgres://tallyhouse@postgres/usage",
};

test("lists, secrets and the stream come out in the shape that services take", () => {
  const settings = parseConfig(SharedSettingsSchema, { ...needed, CONTROL_OLDER_KEYS: `${"a".repeat(32)},` });
  expect(settings.KAFKA_BROKERS).toEqual(["one:9092", "two:9092"]);
  expect(settings.STREAM_HASH_SEED).toHaveLength(16);
  expect(streamOf(settings)).toEqual({ streamId: 1, partitionCount: 16, bookingWindowSeconds: 900, predecessors: [] });
  expect(controlKeysOf(settings)).toEqual([
    controlKeyOf(Buffer.from("k".repeat(32))),
    controlKeyOf(Buffer.from("a".repeat(32))),
  ]);
});

test("the streams before this one are numbers, partitions and whether they were lost", () => {
  const settings = parseConfig(SharedSettingsSchema, {
    ...needed,
    STREAM_ID: "3",
    STREAM_PREDECESSORS: "1:8, 2:16:lost",
  });
  expect(streamOf(settings).predecessors).toEqual([
    { streamId: 1, partitionCount: 8, isLost: false },
    { streamId: 2, partitionCount: 16, isLost: true },
  ]);
});

test.each([
  ["STREAM_PREDECESSORS", "1"],
  ["STREAM_PREDECESSORS", "1:16:gone"],
  ["KAFKA_BROKERS", " , "],
  ["STREAM_HASH_SEED", "00112233445566778899AABBCCDDEEFF"],
  ["TOKEN_PEPPER", "abc"],
  ["CONTROL_SIGNING_KEY", "short"],
  ["CONTROL_OLDER_KEYS", "short"],
  ["BOOKING_WINDOW_SECONDS", "7"],
  ["CLICKHOUSE_URL", "clickhouse:8123"],
  ["POSTGRES_URL", "http://user:hidden-password@postgres/usage"],
])("%s = %j is refused by name, and its value is not shown", (name, value) => {
  const parse = () => parseConfig(SharedSettingsSchema, { ...needed, [name]: value });
  expect(parse).toThrow(new RegExp(`^configuration: ${name}: (?!.*hidden-password)`));
});
