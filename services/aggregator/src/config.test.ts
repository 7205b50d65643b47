import { parseConfig } from "@tallyhouse/runtime";
import { expect, test } from "vitest";
import { AggregatorConfigSchema } from "./config.ts";

test("the defaults are the design's", () => {
  expect(parseConfig(AggregatorConfigSchema, {})).toEqual({
    FLUSH_INTERVAL_MS: 250,
    FLUSH_BYTES_MAX: 67_108_864,
    BUFFER_BYTES_MAX: 268_435_456,
    DEDUPE_HORIZON_HOURS: 840,
    DEDUPE_MEMORY_BYTES_MAX: 4_294_967_296,
    MAX_AGE_HOURS: 816,
    MAX_AHEAD_SECONDS: 300,
    FORWARD_CLOCK_MAX_SECONDS: 3_600,
  });
});

test("G2 a horizon shorter than the allowed age is refused, because an honest retry could count twice", () => {
  expect(() => parseConfig(AggregatorConfigSchema, { DEDUPE_HORIZON_HOURS: "816" })).toThrow(
    "DEDUPE_HORIZON_HOURS: must be at least MAX_AGE_HOURS + MAX_AHEAD_SECONDS",
  );
  expect(parseConfig(AggregatorConfigSchema, { DEDUPE_HORIZON_HOURS: "817" }).DEDUPE_HORIZON_HOURS).toBe(817);
});

test("a horizon beyond what the identities table keeps is refused", () => {
  expect(() => parseConfig(AggregatorConfigSchema, { DEDUPE_HORIZON_HOURS: "889" })).toThrow("DEDUPE_HORIZON_HOURS");
});

test("a flush that would need more than the buffer is refused", () => {
  expect(() => parseConfig(AggregatorConfigSchema, { FLUSH_BYTES_MAX: "1000", BUFFER_BYTES_MAX: "999" })).toThrow(
    "FLUSH_BYTES_MAX: must not exceed BUFFER_BYTES_MAX",
  );
});
