import { describe, expect, it } from "vitest";
import { loadApiDescription } from "./api-description.ts";
import { emptyGroup, parseForm } from "./form.ts";
import { checkParameters } from "./parameters.ts";

const description = loadApiDescription();

/** The check of one operation of the real API description: also of operations that are not implemented yet. */
function check(operation: string, text: string) {
  const schema = description.operations.find(({ key }) => key === operation)?.parameters;
  if (schema === undefined) throw new Error(`no operation ${operation}`);
  const form = emptyGroup();
  parseForm(text, form);
  return checkParameters(schema, form);
}

function problem(operation: string, text: string) {
  const checked = check(operation, text);
  return checked.kind === "invalid" ? checked.error : undefined;
}

const METER = "POST /v1/billing/meters";
const MINIMAL = "display_name=d&event_name=e&default_aggregation[formula]=sum";

describe("parameters", () => {
  it("are typed as documented", () => {
    expect(
      check("POST /v1/prices", "currency=usd&unit_amount=-5&active=true&recurring[interval]=month&metadata[a]="),
    ).toEqual({
      kind: "valid",
      parameters: {
        currency: "usd",
        unit_amount: -5,
        active: true,
        recurring: { interval: "month" },
        metadata: { a: "" },
      },
    });
    expect(check("POST /v1/prices", "currency=usd&tiers_mode=graduated&tiers[1][up_to]=inf&tiers[0][up_to]=5")).toEqual(
      {
        kind: "valid",
        parameters: { currency: "usd", tiers_mode: "graduated", tiers: [{ up_to: 5 }, { up_to: "inf" }] },
      },
    );
  });

  it("unset with an empty text where documented, and nowhere else", () => {
    expect(check("POST /v1/customers", "metadata=&address=")).toEqual({
      kind: "valid",
      parameters: { metadata: "", address: "" },
    });
    expect(problem("POST /v1/customers", "email=")).toEqual({
      type: "invalid_request_error",
      code: "parameter_invalid_empty",
      message:
        "You passed an empty string for 'email'. We assume empty values are an attempt to unset a parameter; " +
        "however 'email' cannot be unset. You should remove 'email' from your request or supply a non-empty value.",
      param: "email",
    });
  });

  it.each([
    [`${MINIMAL}&colour=red`, "parameter_unknown", "Received unknown parameter: colour", "colour"],
    [
      `${MINIMAL}&default_aggregation[x]=1`,
      "parameter_unknown",
      "Received unknown parameter: default_aggregation[x]",
      "default_aggregation[x]",
    ],
    [
      "event_name=e&default_aggregation[formula]=sum",
      "parameter_missing",
      "Missing required param: display_name.",
      "display_name",
    ],
    [
      "display_name=d&event_name=e&default_aggregation[x]=1",
      "parameter_unknown",
      "Received unknown parameter: default_aggregation[x]",
      "default_aggregation[x]",
    ],
    [
      `${MINIMAL}&value_settings[event_payload_key]=`,
      "parameter_invalid_empty",
      /^You passed an empty string/,
      "value_settings[event_payload_key]",
    ],
    [
      MINIMAL.replace("sum", "max"),
      undefined,
      "Invalid default_aggregation[formula]: must be one of count, last, or sum",
      "default_aggregation[formula]",
    ],
    [`${MINIMAL}&expand=x`, undefined, "Invalid array", "expand"],
    [`${MINIMAL}&value_settings=x`, undefined, "Invalid object", "value_settings"],
    [MINIMAL.replace("event_name=e", "event_name[a]=e"), undefined, "Invalid string", "event_name"],
    [
      MINIMAL.replace("event_name=e", `event_name=${"e".repeat(101)}`),
      undefined,
      "Invalid string: eeee...eeee; must be at most 100 characters",
      "event_name",
    ],
  ])("refuse %s", (text, ...[code, message, param]) => {
    const { message: actual, ...rest } = problem(METER, text) ?? { message: "" };
    expect(rest).toEqual({ type: "invalid_request_error", ...(code === undefined ? {} : { code }), param });
    expect(actual).toMatch(message ?? "");
  });

  it.each(["x", "1.5", "1e3", "", "99999999999999999999"])("refuse %j as an integer", (text) => {
    expect(problem("GET /v1/customers", `limit=${text}`)).toMatchObject({
      code: text === "" ? "parameter_invalid_empty" : "parameter_invalid_integer",
      param: "limit",
    });
  });

  it("name the last alternative that could have been meant", () => {
    expect(problem("POST /v1/prices", "currency=usd&tiers[0][up_to]=many")).toMatchObject({
      code: "parameter_invalid_integer",
      param: "tiers[0][up_to]",
    });
  });

  it("refuse a boolean that is neither true nor false", () => {
    expect(problem("POST /v1/prices", "currency=usd&active=1")).toMatchObject({
      message: "Invalid boolean: 1",
      param: "active",
    });
  });

  it("are limited to 5,000 characters where nothing is documented", () => {
    expect(problem("POST /v1/customers", `name=${"n".repeat(5_000)}`)).toBeUndefined();
    expect(problem("POST /v1/customers", `name=${"n".repeat(5_001)}`)).toMatchObject({ param: "name" });
  });

  it("of every documented operation can be checked", () => {
    for (const operation of description.operations) {
      const checked = checkParameters(operation.parameters, emptyGroup());
      const expected = operation.parameters.required?.length === 0 ? "valid" : "invalid";
      expect([operation.key, checked.kind]).toEqual([operation.key, expected]);
    }
  });
});
