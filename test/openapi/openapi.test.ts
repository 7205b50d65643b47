/**
 * An outside tool reads /openapi.json and sends what it says, and what it does not say, to a running Tallyhouse: EXAMPLES (default
 * 60) per operation from SEED (default 1). `EXAMPLES=1700` sends some 10,000 requests. Needs Python with venv and a package index.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { startStandalone } from "@tallyhouse/standalone";
import { expect, test } from "vitest";

/** Schemathesis, MIT licence: property-based requests from an OpenAPI document, by people who never saw our code. */
const VERSION = "4.32.5";
const SEED = process.env["SEED"] ?? "1";
const EXAMPLES = process.env["EXAMPLES"] ?? "60";
const INSTALL_TIMEOUT_MS = 180_000;
/** 20,000 requests took 6 minutes on two quiet cores. */
const RUN_TIMEOUT_MS = 1_800_000;
const CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
const run = promisify(execFile);

test(
  "G1 requests generated from the OpenAPI document get no undocumented answer and no 5xx",
  { timeout: INSTALL_TIMEOUT_MS + RUN_TIMEOUT_MS },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-openapi-"));
    const running = await startStandalone({
      TALLYHOUSE_DATA: join(folder, "data"),
      TALLYHOUSE_PORT: "0",
      TALLYHOUSE_SQL_PORT: "off",
      LOG_LEVEL: "warn",
    });
    try {
      const venv = join(folder, "venv");
      await run("python3", ["-m", "venv", venv]);
      await run(join(venv, "bin", "python"), ["-m", "pip", "install", "--quiet", `schemathesis==${VERSION}`], {
        timeout: INSTALL_TIMEOUT_MS,
      });
      const options =
        `--seed ${SEED} --max-examples ${EXAMPLES} --phases fuzzing --workers 2 --continue-on-failure --no-shrink ` +
        `--checks ${CHECKS}`;
      const { stdout, exitCode } = await run(
        join(venv, "bin", "schemathesis"),
        ["run", `${running.url}/openapi.json`, "-H", `Authorization: Bearer ${running.token}`, ...options.split(" ")],
        // Its database of examples would land in the working directory.
        { cwd: folder, timeout: RUN_TIMEOUT_MS, maxBuffer: 67_108_864 },
      ).then(
        (done) => ({ ...done, exitCode: 0 }),
        (error: Error & { stdout?: string; code?: number }) => ({
          stdout: error.stdout ?? error.message,
          exitCode: error.code,
        }),
      );
      process.stdout.write(`${stdout.slice(-4_000)}\n`);
      expect(exitCode, stdout.slice(-20_000)).toBe(0);
      const sent = Number(/(\d+) generated/.exec(stdout)?.[1] ?? 0);
      expect(sent).toBeGreaterThan(Number(EXAMPLES));
      const alive = await fetch(`${running.url}/readyz`);
      expect(alive.status).toBe(200);
    } finally {
      await running.stop();
      await rm(folder, { recursive: true, force: true });
    }
  },
);
