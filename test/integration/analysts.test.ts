/** An independent client, clickhouse-connect for Python, against the analysts' endpoint. Needs Python 3 and pip; fails without. */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const CLIENT = "clickhouse-connect==1.12.0";
/** Kept between runs, outside the tree. */
const VENV = join(tmpdir(), "tallyhouse-clickhouse-connect-1.12.0");
const PYTHON = join(VENV, "bin", "python");
const INSTALL_TIMEOUT_MS = 180_000;

/** Reads its arguments, prints one JSON document. */
const PROGRAM = `
import json, sys
import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError
port, token = int(sys.argv[1]), sys.argv[2]
def connect(password):
    return clickhouse_connect.get_client(host="127.0.0.1", port=port, username="analyst", password=password)
client = connect(token)
out = {"ping": client.ping(), "version": client.server_version, "settings": len(client.server_settings)}
daily = "SELECT customer, events, quantity FROM usage_daily(timeZone = {zone:String}) WHERE mode = {mode:String} AND meter = 'input_tokens' AND customer IN {customers:Array(String)}"
found = client.query(daily, parameters={"zone": "Europe/Berlin", "mode": "live", "customers": ["o'neil; \\\\ 😀", "nobody"]})
out["columns"] = list(found.column_names)
out["rows"] = [[str(value) for value in row] for row in found.result_rows]
out["bound"] = client.query("SELECT count() FROM usage WHERE customer = %(c)s", parameters={"c": "o'neil\\\\"}).result_rows
out["command"] = client.command("SELECT count() FROM meters")
with client.query_row_block_stream("SELECT windowStart FROM usage ORDER BY windowStart") as blocks:
    out["streamed"] = sum(len(block) for block in blocks)
out["frame"] = client.raw_query("SELECT 1 AS one", fmt="CSVWithNames").decode()
out["refused"] = []
for sql in ["SELECT * FROM progress", "SELECT * FROM file('/etc/passwd', 'LineAsString')", "INSERT INTO rollup VALUES (1)", "DROP TABLE rollup"]:
    try:
        client.command(sql)
        out["refused"].append(None)
    except DatabaseError as error:
        out["refused"].append(error.code)
try:
    connect("svc_live_th_wrong0000000000000000")
    out["wrong"] = None
except DatabaseError as error:
    out["wrong"] = error.code
print(json.dumps(out))
`;

const folder = mkdtempSync(join(tmpdir(), "tallyhouse-analysts-client-"));
let running: Standalone;

beforeAll(async () => {
  if (!existsSync(join(VENV, "installed"))) {
    await promisify(execFile)("python3", ["-m", "venv", "--clear", VENV]);
    await promisify(execFile)(PYTHON, ["-m", "pip", "install", "--quiet", CLIENT], { timeout: INSTALL_TIMEOUT_MS });
    await promisify(execFile)("touch", [join(VENV, "installed")]);
  }
  running = await startStandalone({ TALLYHOUSE_DATA: folder, TALLYHOUSE_PORT: "0", LOG_LEVEL: "error" });
}, INSTALL_TIMEOUT_MS);
afterAll(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function runProgram(): Promise<Record<string, unknown>> {
  const port = new URL(running.sqlUrl ?? "").port;
  const { stdout } = await promisify(execFile)(PYTHON, ["-c", PROGRAM, port, running.token]);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe("clickhouse-connect", () => {
  test("connects, asks with parameters, streams, and is refused with ClickHouse's codes", async () => {
    const customer = "o'neil; \\ 😀";
    const answer = await fetch(`${running.url}/v1/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${running.token}`, "content-type": "application/json" },
      body: JSON.stringify({ id: "1", customer, type: "llm.request", data: { inputTokens: "1.000000001" } }),
    });
    expect(answer.status).toBe(202);
    const isCounted = async (): Promise<boolean> =>
      JSON.stringify((await runProgram())["rows"]) === JSON.stringify([[customer, "1", "1.000000001"]]);
    await until(isCounted, { timeoutMs: 30_000 });
    const found = await runProgram();
    expect(found).toMatchObject({
      ping: true,
      version: expect.stringMatching(/^26\./),
      columns: ["customer", "events", "quantity"],
      bound: [[0]],
      command: 3,
      frame: '"one"\n1\n',
      refused: [497, 497, 497, 497],
      wrong: 516,
    });
    expect(found["settings"]).toBeGreaterThan(500);
    expect(found["streamed"]).toBe(2);
  });
});
