import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { runPlans } from "./plans-command.ts";

const plans = (unit: string): string => `schema: tallyhouse.plans/1
plans:
  pro:
    currency: usd
    price: "49"
    items:
      in: {meter: input_tokens, policy: overage, price: {model: per_unit, unit: ${unit}}}
`;

let folder: string;
let good: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tallyhouse-plans-"));
  good = join(folder, "plans.yaml");
  writeFileSync(good, plans('"0.01"'));
});
afterAll(() => rmSync(folder, { recursive: true }));

let server: Server | undefined;
afterEach(() => {
  server?.close();
  server = undefined;
});

/** Runs the command against a deployment that answers this. */
async function run(args: readonly string[], answer: { readonly status?: number; readonly body?: object } = {}) {
  const asked: { url: string; body: unknown }[] = [];
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
    request.on("end", () => {
      asked.push({ url: `${request.method} ${request.url}`, body: JSON.parse(body) });
      response.writeHead(answer.status ?? 200).end(JSON.stringify(answer.body ?? {}));
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  let [out, err] = ["", ""];
  const code = await runPlans(args, {
    env: { TALLYHOUSE_URL: `http://127.0.0.1:${port}`, TALLYHOUSE_TOKEN: "svc_live_th_x" },
    output: { out: (text) => void (out += text), err: (text) => void (err += text) },
  });
  return { code, out, err, asked };
}

const none = { kind: "plan", key: "free", change: "none", version: 4, text: [] };
const changed = { kind: "plan", key: "pro", change: "new-version", version: 2, text: ["~ price: 49 → 59"] };
const missing = { kind: "plan", key: "old", change: "missing", version: 7, text: [] };
const endpoints = { kind: "endpoints", key: "endpoints", change: "new", version: 1, text: [] };

describe("plans check", () => {
  test("counts the plans of a good file, and asks nobody", async () => {
    expect(await run(["check", good])).toEqual({ code: 0, out: `${good}: 1 plans, no problem\n`, err: "", asked: [] });
  });

  test.each(["check", "diff", "apply"])("%s tells every problem with its line, and asks nobody", async (verb) => {
    const bad = join(folder, "bad.yaml");
    writeFileSync(bad, `${plans("0.01")}    colour: red\n`);
    const { code, err, asked } = await run([verb, bad, ...(verb === "apply" ? ["--reason", "r"] : [])]);
    expect(code).toBe(1);
    expect(err).toBe(
      `${bad}:7: plans.pro.items.in.price.unit: must be decimal text in quotes, such as "0.002"\n` +
        `${bad}:8: plans.pro.colour: is not a known key\n`,
    );
    expect(asked).toEqual([]);
  });
});

describe("plans diff", () => {
  test("exits 2 when something changes, and says what", async () => {
    const { code, out, asked } = await run(["diff", good], { body: { changes: [none, changed, missing, endpoints] } });
    expect(code).toBe(2);
    expect(out).toBe(
      "none         plan free v4\n" +
        "new-version  plan pro v2\n    ~ price: 49 → 59\n" +
        "missing      plan old v7 (not in the file: stays as it is)\n" +
        "new          endpoints v1\n",
    );
    expect(asked).toEqual([{ url: "POST /admin/v1/plans/diff", body: { file: plans('"0.01"') } }]);
  });

  test("exits 0 when nothing does", async () => {
    expect((await run(["diff", good], { body: { changes: [none, missing] } })).code).toBe(0);
  });

  test("a refusal is told with its lines", async () => {
    const problems = [{ line: 7, field: "plans.pro.items.in.meter", rule: 'there is no meter "input_tokens"' }];
    const body = { code: "PLANS_INVALID", detail: "the plans file has a problem", problems };
    await expect(run(["diff", good], { status: 400, body })).rejects.toThrow(
      'PLANS_INVALID: the plans file has a problem\n  line 7: plans.pro.items.in.meter: there is no meter "input_tokens"',
    );
  });
});

describe("plans apply", () => {
  test("sends who and why, and exits 0 when something changed, too", async () => {
    const { code, asked } = await run(["apply", good, "--reason", "prices of 2027", "--actor", "kim"], {
      body: { changes: [changed] },
    });
    expect(code).toBe(0);
    expect(asked).toEqual([
      {
        url: "POST /admin/v1/plans/apply",
        body: { file: plans('"0.01"'), reason: "prices of 2027", actor: "kim" },
      },
    ]);
  });
});

test.each([
  [[], "plans needs check, diff or apply, and one file"],
  [["apply"], "plans needs check, diff or apply, and one file"],
  [["drop", "x"], "plans needs check, diff or apply, and one file"],
  [["check", "x", "y"], "plans needs check, diff or apply, and one file"],
  [["check", "x", "--reason", "r"], "belong to plans apply"],
  [["apply", "x"], "plans apply needs --reason"],
  [["check", "/nowhere/plans.yaml"], "cannot read /nowhere/plans.yaml"],
])("%j is wrong use", async (args, message) => {
  await expect(run(args)).rejects.toThrow(message);
});
