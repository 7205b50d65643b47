import { parseConfig } from "@tallyhouse/runtime";
import { expect, test } from "vitest";
import { GatewayConfigSchema } from "./config.ts";

const CONSOLE_URL = "http://127.0.0.1:8081";

test("the documented limits are the defaults", () => {
  expect(parseConfig(GatewayConfigSchema, { CONSOLE_URL })).toMatchObject({
    BODY_BYTES_MAX: 1_000_000,
    EVENTS_PER_REQUEST_MAX: 500,
    INFLIGHT_BYTES_MAX: 64_000_000,
    INFLIGHT_REQUESTS_MAX: 2_000,
    APPEND_TIMEOUT_MS: 4_000,
  });
});

test.each([
  ["no console", {}, /CONSOLE_URL/],
  ["a console below a path", { CONSOLE_URL: `${CONSOLE_URL}/console` }, /CONSOLE_URL: must be an origin/],
  ["a console that is no web address", { CONSOLE_URL: "file:///etc/passwd" }, /CONSOLE_URL/],
  ["a budget below one body", { CONSOLE_URL, INFLIGHT_BYTES_MAX: "999999" }, /INFLIGHT_BYTES_MAX: must be at least/],
  ["a stop shorter than an append", { CONSOLE_URL, CLOSE_GRACE_MS: "4000" }, /CLOSE_GRACE_MS: must exceed/],
  ["a limit of nothing", { CONSOLE_URL, EVENTS_PER_REQUEST_MAX: "0" }, /EVENTS_PER_REQUEST_MAX/],
])("%s is refused", (_name, env, expected) => {
  expect(() => parseConfig(GatewayConfigSchema, env)).toThrow(expected);
});

test("a console's address may end in a slash", () => {
  expect(parseConfig(GatewayConfigSchema, { CONSOLE_URL: `${CONSOLE_URL}/` }).CONSOLE_URL).toBe(`${CONSOLE_URL}/`);
});
