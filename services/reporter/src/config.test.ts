import { parseConfig } from "@tallyhouse/runtime";
import { describe, expect, it } from "vitest";
import { ReporterConfigSchema } from "./config.ts";

const parse = (env: Record<string, string>) => parseConfig(ReporterConfigSchema, env);

describe("configuration", () => {
  it("has the documented defaults", () => {
    expect(parse({})).toEqual({
      REPORT_INTERVAL_MS: 60_000,
      REPORT_LATENESS_SECONDS: 900,
      CLOSE_LATENESS_SECONDS: 3_600,
      RERATE_INTERVAL_SECONDS: 86_400,
      SEND_CONCURRENCY_MAX: 128,
      VERIFY_SETTLE_SECONDS: 900,
      REPORT_AUTO_MAP: false,
    });
  });

  it("takes secret and restricted keys of the right mode, and no other", () => {
    expect(parse({ STRIPE_TEST_SECRET_KEY: "rk_test_1", STRIPE_LIVE_SECRET_KEY: "sk_live_1" })).toMatchObject({
      STRIPE_TEST_SECRET_KEY: "rk_test_1",
    });
    expect(() => parse({ STRIPE_TEST_SECRET_KEY: "sk_live_1" })).toThrow(/STRIPE_TEST_SECRET_KEY: must be a test key/);
    expect(() => parse({ STRIPE_LIVE_SECRET_KEY: "pk_live_1" })).toThrow(/STRIPE_LIVE_SECRET_KEY: must be a live key/);
  });

  it("never shows a key in its error", () => {
    expect(() => parse({ STRIPE_TEST_SECRET_KEY: "sk_live_hidden" })).toThrow(/^(?!.*hidden)/);
  });

  it("refuses to create customers at Stripe itself", () => {
    expect(() => parse({ REPORT_AUTO_MAP: "true" })).toThrow(/REPORT_AUTO_MAP: .*set STRIPE_API_URL/);
    expect(parse({ REPORT_AUTO_MAP: "true", STRIPE_API_URL: "http://127.0.0.1:8081" }).REPORT_AUTO_MAP).toBe(true);
  });
});
