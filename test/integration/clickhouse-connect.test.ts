import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { expect, it } from "vitest";

const SCRIPT = fileURLToPath(new URL("./clickhouse-connect.py", import.meta.url));
const VERSION = "1.12.0";
/** Making the environment and fetching the client from the package index. */
const INSTALL_TIMEOUT_MS = 180_000;
const run = promisify(execFile);

it(
  "clickhouse-connect, which shares no code with us, connects, inserts, asks with parameters and sees a broken answer",
  { timeout: INSTALL_TIMEOUT_MS + 60_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-connect-"));
    const front = await startClickHouse({ folder: join(folder, "front"), username: "analyst", password: "s3cret" });
    try {
      const python = join(folder, "venv", "bin", "python");
      await run("python3", ["-m", "venv", join(folder, "venv")]);
      await run(python, ["-m", "pip", "install", "--quiet", `clickhouse-connect==${VERSION}`], {
        timeout: INSTALL_TIMEOUT_MS,
      });
      const { hostname, port, username, password } = new URL(front.url);
      const { stdout } = await run(python, [SCRIPT, hostname, port, username, password]);
      expect(JSON.parse(stdout)).toEqual({
        ping: true,
        version: expect.stringMatching(/^\d+\.\d+/) as string,
        written: 5000,
        count: 5000,
        found: [["name 2 ' \\ \t", "2026-11-21T12:00:00.123000", "12345678901234567890.000000001"]],
        columns: ["id", "name", "at", "amount"],
        numbers: [[44_999_850_000, 300_000]],
        rows: 300_000,
        broken: expect.stringContaining("too far") as string,
        unknown: expect.stringContaining("UNKNOWN_TABLE") as string,
      });
    } finally {
      await front.stop();
      await rm(folder, { recursive: true, force: true });
    }
  },
);
