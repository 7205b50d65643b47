/** The commands in this process, against a standalone of their own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DAY_MS, floorTo, formatInstant } from "@tallyhouse/domain";
import { addMonths } from "@tallyhouse/plans";
import { systemClock } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Standalone, startStandalone } from "./app.ts";
import { runCustomers } from "./customers-command.ts";
import { runPlans } from "./plans-command.ts";

const folder = mkdtempSync(join(tmpdir(), "tallyhouse-customers-"));
const WHY = ["--reason", "order 4711", "--actor", "kim"];
const PLANS = `schema: tallyhouse.plans/1
defaults: {currency: usd, interval: month, allow: ["* /v1/**"]}
plans:
  pro:
    price: "49"
    items: {input: {meter: input_tokens, included: "1000", policy: overage, price: {model: per_unit, unit: "0.001"}}}
  enterprise: {price: custom, limits: custom, items: custom}
`;
let running: Standalone;

beforeAll(async () => {
  running = await startStandalone({
    BOOKING_WINDOW_SECONDS: "5",
    REPORT_INTERVAL_MS: "200",
    LOG_LEVEL: "silent",
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_SQL_PORT: "off",
  });
});
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

const envOf = (): Record<string, string> => ({ TALLYHOUSE_URL: running.url, TALLYHOUSE_DATA: folder });

/** What the command writes. */
async function customers(...args: string[]): Promise<string> {
  let text = "";
  expect(await runCustomers(args, { env: envOf(), write: (more) => (text += more) })).toBe(0);
  return text;
}

/** What the command is refused with: the name of the error and its sentence. */
async function refused(...args: string[]): Promise<string> {
  const error = await customers(...args).catch((reason: unknown) => reason);
  return error instanceof Error ? `${error.name}: ${error.message}` : "was not refused";
}

function fileOf(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function applyPlans(): Promise<void> {
  let told = "";
  const output = { out: (text: string) => (told += text), err: (text: string) => (told += text) };
  const code = await runPlans(["apply", fileOf("plans.yaml", PLANS), ...WHY], { env: envOf(), output });
  expect([code, told]).toEqual([0, expect.stringContaining("pro")]);
}

async function use(customer: string): Promise<void> {
  const event = { id: `of-${customer}`, customer, type: "llm.request", data: { inputTokens: 10, model: "small" } };
  const headers = { authorization: `Bearer ${running.token}`, "content-type": "application/json" };
  const answer = await fetch(`${running.url}/v1/events`, { method: "POST", headers, body: JSON.stringify(event) });
  if (answer.status !== 202) throw new Error(await answer.text());
}

describe("tallyhouse customers", () => {
  test("from unknown usage to a customer with a plan and a contract, as an operator types it", async () => {
    const id = "a/b 100%";
    await use(id);
    await until(async () => (await customers("unbilled")).includes(`${id}\tunknown customer\t`), { timeoutMs: 60_000 });
    const contacts = ["--contact", "billing:ar@acme.test", "--contact", "technical:ops@acme.test"];
    expect(await customers("create", id, "--name", "Acme Ltd", "--zone", "Asia/Kolkata", ...contacts)).toBe(
      `customer ${id}: Acme Ltd\n`,
    );
    expect(await customers("unbilled")).toContain(`${id}\tno plan\t`);
    expect(await customers("list", "--search", "acme")).toBe(`${id}\tAcme Ltd\t(no plan)\n`);

    await applyPlans();
    const start = floorTo(systemClock.now(), DAY_MS);
    const [from, next] = [formatInstant(start), formatInstant(addMonths(start, 1))];
    expect(await customers("set-plan", id, "pro", "--from", from, ...WHY)).toBe(
      `decided   ${id} is on pro from ${from}\n`,
    );
    expect(await customers("list")).toBe(`${id}\tAcme Ltd\tpro\n`);
    await until(async () => (await customers("unbilled")) === "all usage is covered by a plan\n", {
      timeoutMs: 60_000,
    });

    const overrides = fileOf("overrides.yaml", `price: "39"\nitems: {input: {included: "5000"}}\n`);
    expect(await customers("contract", id, "pro", "--overrides", overrides, ...WHY)).toBe(
      `stored    contract 1 for pro in periods from ${next}: {"price":"39","items":{"input":{"included":"5000"}}}\n`,
    );
    expect(await customers("set-plan", id, "none", ...WHY)).toBe(`decided   ${id} is on no plan from ${next}\n`);
    expect(await customers("set-plan", id, "pro", ...WHY)).toBe(
      `decided   ${id} is on pro from ${next}\nreplaced  no plan from ${next}\n`,
    );
    expect(await customers("change", id, "--name", "Acme GmbH", "--billing", "none", ...WHY)).toContain("Acme GmbH");
    const shown = await customers("show", id);
    for (const line of [
      `${id}: Acme GmbH, days in Asia/Kolkata, billing none\n`,
      "  billing: ar@acme.test\n",
      `  now  pro@1, ${from} to ${next}\n`,
      `  next pro@1+1, ${next} to `,
      `  contract 1 for pro in periods from ${next}: {"price":"39",`,
      `  planned  pro from ${next}, decided `,
      `  replaced none from ${next}, decided `,
      `  holds    pro from ${from}, decided `,
      " by kim: order 4711\n",
    ])
      expect(shown).toContain(line);
    expect(JSON.parse(await customers("show", id, "--json"))).toMatchObject({ id, plan: "pro@1", billing: "none" });
    const log = (await customers("log", id)).trim().split("\n");
    expect(log.map((line) => line.split("  ")[2]?.trim())).toEqual(
      ["change", "set-plan", "set-plan", "contract", "set-plan", "create"].map((verb) => `customer.${verb}`),
    );
    expect(await customers("log")).toContain("plan");
  });

  test("a plan of custom fields needs a contract whose items name meters; every wrong field is told", async () => {
    await applyPlans();
    await customers("create", "big", "--name", "Big Corp", "--actor", "kim");
    expect(await refused("set-plan", "big", "enterprise", ...WHY)).toMatch(
      /^ApiError: CONTRACT_NEEDED: [^]*\n {2}price: is custom[^]*\n {2}items: is custom/,
    );
    const item = (meter: string): string => `{meter: ${meter}, policy: overage, price: {model: per_unit, unit: "1"}}`;
    const contract = (name: string, items: string): Promise<string> => {
      const path = fileOf(name, `price: "5000"\nlimits: {}\nitems: ${items}\n`);
      return customers("contract", "big", "enterprise", "--overrides", path, ...WHY);
    };
    const error = await contract("wrong.yaml", `{a: ${item("no_such_meter")}}`).catch((reason: unknown) => reason);
    expect(String(error)).toMatch(/CUSTOMER_INVALID: [^]*\/overrides\/items\/a\/meter/);
    expect(await contract("right.yaml", `{a: ${item("input_tokens")}}`)).toContain("stored    contract 1");
    expect(await customers("set-plan", "big", "enterprise", ...WHY)).toContain("is on enterprise from");
    expect(JSON.parse(await customers("show", "big", "--json"))).toMatchObject({
      plan: "enterprise@1+1",
      contract: { meterVersions: { input_tokens: 1 } },
    });
  });

  test("what means nothing or is refused says why", async () => {
    expect(await refused("create", "x")).toBe("UsageError: --name is required");
    expect(await refused("create", "..", "--name", "Acme")).toMatch(/^ApiError: CUSTOMER_INVALID: \/id is a word/);
    expect(await refused("create", "x", "--name", "Acme", "--contact", "ar@acme.test")).toMatch(
      /^UsageError: --contact/,
    );
    expect(await refused("create", "x", "--name", "Acme", "--at", "now")).toBe(
      "UsageError: --at does not belong to customers create",
    );
    expect(await refused("set-plan", "x")).toBe("UsageError: customers set-plan takes 2 words");
    expect(await refused("set-plan", "x", "pro")).toBe("UsageError: --reason is required");
    expect(await refused("set-plan", "x", "pro", ...WHY)).toMatch(/^ApiError: CUSTOMER_UNKNOWN: /);
    expect(await refused("contract", "x", "pro", ...WHY)).toBe("UsageError: --overrides is required");
    const broken = fileOf("broken.yaml", `price: "39"\nprice: "40"\n`);
    expect(await refused("contract", "x", "pro", "--overrides", broken, ...WHY)).toMatch(
      /^UsageError: \S+broken.yaml:2: /,
    );
    expect(await refused("show", "nobody")).toMatch(/^ApiError: CUSTOMER_UNKNOWN: there is no customer "nobody"/);
    expect(await refused("delete", "x")).toMatch(/^UsageError: customers needs create, change, list, show,/);
    expect(await customers("--help")).toContain("tallyhouse customers set-plan ID PLAN|none --reason R");
  });
});
