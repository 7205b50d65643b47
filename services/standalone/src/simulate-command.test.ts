import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SimulationLine } from "@tallyhouse/billing";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { runSimulate } from "./simulate-command.ts";

const FILE = `schema: tallyhouse.plans/1
defaults: {currency: usd}
plans:
  pro: {price: "6", items: {calls: {meter: calls, policy: overage, price: {model: per_unit, unit: "0.05"}}}}
`;
const SPAN = ["--from", "2026-10-01T00:00:00Z", "--to", "2026-11-01T00:00:00Z"];
const customer = (id: string, [before = "", after = "", change = ""]: readonly string[]) => ({
  customer: id,
  currency: "usd",
  plans: ["pro", "old"],
  plansAfter: ["pro"],
  periods: 2,
  before,
  after,
  change,
});
const bucket = (name: string, customers: number, change: string) => ({ bucket: name, customers, change });
const LINES: readonly SimulationLine[] = [
  { kind: "begin", customers: 3, asOf: "2026-11-20T12:00:00Z" },
  {
    kind: "customers",
    customers: [customer("=1+1", ["9.50", "8.25", "-1.25"]), customer('a "quoted", one', ["1.00", "3.00", "2.00"])],
  },
  { kind: "progress", customers: 2, totalCustomers: 3 },
  {
    kind: "skipped",
    periods: [
      { customer: "evil\u001b[2J", start: "2026-10-01T00:00:00Z", plan: "yen", planAfter: "yen", reason: "currency" },
    ],
  },
  { kind: "progress", customers: 3, totalCustomers: 3 },
  {
    kind: "summary",
    skippedPeriods: 1,
    currencies: [
      {
        currency: "usd",
        customers: 2,
        periods: 4,
        before: "10.50",
        after: "11.25",
        change: "0.75",
        more: 1,
        less: 1,
        same: 0,
        plans: [{ plan: "old", planAfter: "pro", periods: 4, before: "10.50", after: "11.25", change: "0.75" }],
        distribution: [
          bucket("−25 to −10 %", 1, "-1.25"),
          bucket("unchanged", 0, "0.00"),
          bucket("+100 % and more", 1, "2.00"),
        ],
        largestIncreases: [{ customer: 'a "quoted", <one>', before: "1.00", after: "3.00", change: "2.00" }],
        largestDecreases: [],
      },
    ],
  },
  { kind: "end" },
];

let lines: readonly SimulationLine[] = LINES;
let asked: unknown = null;
let folder: string;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    asked = { path: request.url, body: JSON.parse(Buffer.concat(chunks).toString()) as unknown };
    response.setHeader("content-type", "application/x-ndjson");
    response.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  });
});

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "tallyhouse-simulate-"));
  writeFileSync(join(folder, "plans.yaml"), FILE);
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
});
beforeEach(() => {
  lines = LINES;
});
afterAll(async () => {
  await new Promise((resolve) => void server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

async function simulate(...args: string[]): Promise<{ code: number; out: string; err: string; shown: string[] }> {
  let [out, err] = ["", ""];
  const shown: string[] = [];
  const env = { TALLYHOUSE_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, TALLYHOUSE_TOKEN: "t" };
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const code = await runSimulate(args, { env, output, show: (text) => void shown.push(text) });
  return { code, out, err, shown };
}

describe("tallyhouse simulate", () => {
  it("prints the same report twice, and every customer and a picture into files", async () => {
    const [csv, svg] = [join(folder, "c.csv"), join(folder, "p.svg")];
    const args = ["--plans", join(folder, "plans.yaml"), ...SPAN, "--map", "old=pro", "--csv", csv, "--svg", svg];
    const { code, out, err, shown } = await simulate(...args);
    expect(code).toBe(0);
    expect(asked).toEqual({
      path: "/admin/v1/simulate",
      body: { file: FILE, from: SPAN[1], to: SPAN[3], map: { old: "pro" } },
    });
    expect(out).toBe(`Periods that begin from 2026-10-01T00:00:00Z to 2026-11-01T00:00:00Z

USD: 2 customers, 4 periods; 1 would have paid more, 1 less, 0 the same

  plan       periods  before  after  change
  old → pro        4   10.50  11.25   +0.75
  all              4   10.50  11.25   +0.75

Distribution of customers by the change of their bill

  change of bill   customers  sum of changes
  −25 to −10 %             1           -1.25
  unchanged                0            0.00
  +100 % and more          1           +2.00

Largest increases

  customer           before  after  change
  a "quoted", <one>    1.00   3.00   +2.00

Left out on both sides: 1 periods

  customer  period                plan  tried  why
  evil?[2J  2026-10-01T00:00:00Z  yen   yen    the plan under trial has another currency
`);
    expect(err).toBe("3 customers, usage as of 2026-11-20T12:00:00Z\n");
    expect(shown).toEqual([
      `rating [${"#".repeat(20)}${" ".repeat(10)}] 2 of 3`,
      `rating [${"#".repeat(30)}] 3 of 3`,
      "",
    ]);
    const files = [readFileSync(csv, "utf8"), readFileSync(svg, "utf8")];
    expect(files[0]).toBe(
      [
        "customer,currency,plans,plansAfter,periods,before,after,change",
        "'=1+1,usd,pro old,pro,2,9.50,8.25,-1.25",
        '"a ""quoted"", one",usd,pro old,pro,2,1.00,3.00,2.00',
        "",
      ].join("\r\n"),
    );
    expect(files[1]).toMatch(/^<\?xml .*\n<svg [^>]*role="img"[^>]*>\n<title>Customers by the change of their bill/);
    expectWellFormed(files[1] ?? "");
    const again = await simulate(...args);
    expect([again.out, readFileSync(csv, "utf8"), readFileSync(svg, "utf8")]).toEqual([out, ...files]);
  });

  it("tells the problems of the file without asking anybody", async () => {
    asked = null;
    const path = join(folder, "bad.yaml");
    writeFileSync(path, FILE.replace('"6"', "six"));
    const { code, err } = await simulate("--plans", path, ...SPAN);
    expect(code).toBe(1);
    expect(err).toMatch(/bad\.yaml:4: plans\.pro\.price/);
    expect(asked).toBeNull();
  });

  it("gives no report of an answer that was cut off", async () => {
    lines = LINES.slice(0, -1);
    await expect(simulate("--plans", join(folder, "plans.yaml"), ...SPAN)).rejects.toThrow(/cut off/);
    lines = [...LINES.slice(0, 2), { kind: "problem", detail: "a store does not answer" }];
    await expect(simulate("--plans", join(folder, "plans.yaml"), ...SPAN)).rejects.toThrow("a store does not answer");
  });

  it.each([
    [[], /needs --plans FILE, --from T and --to T/],
    [["--plans", "x", "--from", "soon", "--to", "later"], /no instant.*soon/],
    [["--plans", "x", ...SPAN, "--map", "pro"], /--map takes OLD=NEW/],
    [["--plans", "/nowhere/plans.yaml", ...SPAN], /cannot read/],
  ])("says what is wrong with %j", async (args, message) => {
    await expect(simulate(...args)).rejects.toThrow(message);
  });
});

/** Every element is closed in its order, and no text holds a bare `<` or `&`. */
function expectWellFormed(xml: string): void {
  const element = /<(\/?)([a-z]+)((?:\s[a-zA-Z-]+=(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>/g;
  const open: string[] = [];
  const wrong: string[] = [];
  for (const [tag, slash = "", name = "", , closed = ""] of xml.matchAll(element)) {
    if (slash === "/" && open.pop() !== name) wrong.push(tag);
    if (slash === "" && closed === "") open.push(name);
  }
  expect([open, wrong]).toEqual([[], []]);
  const texts = xml.replace(/^<\?xml [^>]*\?>/, "").replaceAll(element, "");
  expect(texts).not.toMatch(/[<>]|&(?!(?:amp|lt|gt|quot);)/);
}
