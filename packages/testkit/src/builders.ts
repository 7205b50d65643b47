import { type MeterVersion, parseQuantity, type Quantity, type UsageEvent } from "@tallyhouse/domain";

/** A valid usage event; every field can be overridden. */
export function usageEvent(overrides: Partial<UsageEvent> = {}): UsageEvent {
  return {
    mode: "live",
    customer: "cus_1",
    source: "api",
    id: "evt-1",
    type: "llm.request",
    occurredAt: Date.UTC(2026, 10, 20, 10, 0, 0),
    isStamped: false,
    decidedAt: null,
    data: { inputTokens: 10, outputTokens: 5 },
    ...overrides,
  };
}

/** A valid meter version summing `/inputTokens` of `llm.request`. */
export function meterVersion(
  overrides: Partial<Omit<MeterVersion, "rule">> & { rule?: Partial<MeterVersion["rule"]> } = {},
): MeterVersion {
  const { rule, ...rest } = overrides;
  const meter = rest.meter ?? "input_tokens";
  return {
    mode: "live",
    version: 1,
    ...rest,
    meter,
    rule: {
      key: meter,
      eventType: "llm.request",
      aggregation: "sum",
      value: "/inputTokens",
      where: [],
      dimensions: {},
      unit: "tokens",
      from: "2000-01-01T00:00:00Z",
      ...rule,
    },
  };
}

/** Decimal text as a quantity. */
export function quantity(text: string): Quantity {
  const parsed = parseQuantity(text);
  if (parsed === null) throw new Error(`no quantity: ${text}`);
  return parsed;
}
