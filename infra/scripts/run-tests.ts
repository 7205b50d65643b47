/**
 * `npm test`: the tests of every workspace that has some, through turbo (unchanged workspaces come from its cache), then a
 * table of what ran. Needs Node and npm only. Ends with `N passed, N failed`; exit code 1 when anything failed or did not run.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { repositoryRoot, runCommand } from "./run-command.ts";
import { readReport, type ReportRow, rowOf, tableOf } from "./test-report.ts";
import { readScriptNames, readWorkspaces } from "./workspaces.ts";

/** Two workspaces at a time: each runs its own pool of processes, and the engine inside one takes several hundred MB. */
const WORKSPACES_AT_ONCE = 2;

/** What `npm test` leaves out, because it needs more than Node and npm. Shown once the command exists. */
const NEEDS_MORE: readonly { readonly script: string; readonly needs: string }[] = [
  {
    script: "test:integration",
    needs: "Kafka, PostgreSQL and the ClickHouse front, which it starts (Java 17; Maven, the first time; python3)",
  },
  { script: "test:producers", needs: "Kafka, which it starts, and kcat (Debian package kcat)" },
  { script: "test:audit", needs: "some minutes: rows altered by hand, and an audit beside kills" },
  { script: "test:openapi", needs: "python3 with venv and a package index: requests that an outside tool generates" },
  { script: "test:traces", needs: "the real traces in TRACES_DIR" },
  { script: "test:traces:kafka", needs: "both" },
  { script: "test:kill", needs: "python3 and some minutes: kills standalone under load and recounts" },
];

function reportPath(folder: string): string {
  return join(repositoryRoot, folder, ".test-results", "results.json");
}

const tested = readWorkspaces(repositoryRoot).filter((workspace) => workspace.testFiles.length > 0);
// A report of an earlier run must not stand in for one of this run; turbo puts back those of unchanged workspaces.
for (const { folder } of tested) rmSync(reportPath(folder), { force: true });

const run = await runCommand(
  "turbo",
  [
    "run",
    "test",
    ...tested.map(({ name }) => `--filter=${name}`),
    `--concurrency=${WORKSPACES_AT_ONCE}`,
    "--continue=always",
    "--output-logs=errors-only",
    "--log-order=grouped",
    "--log-prefix=none",
    "--ui=stream",
    "--cache=local:rw",
  ],
  { echo: true },
);

const rows: ReportRow[] = tested.map(({ folder, testFiles }) =>
  rowOf({ workspace: folder, testFileCount: testFiles.length, report: readReport(reportPath(folder)) }),
);
const passed = rows.reduce((sum, row) => sum + row.passed, 0);
const failed = rows.reduce((sum, row) => sum + row.failed, 0);
// Turbo itself may fail (a bad turbo.json) while older reports read well: its verdict counts too.
const turboFailed = run.exitCode !== 0 && failed === 0 ? 1 : 0;

const scripts = new Set(readScriptNames(repositoryRoot));
const left = NEEDS_MORE.filter(({ script }) => scripts.has(script));
const lines = [
  "",
  ...tableOf(rows),
  "",
  ...(left.length === 0 ? [] : ["not run here, because it needs more than Node and npm:"]),
  ...left.map(({ script, needs }) => `  npm run ${script.padEnd(18)} ${needs}`),
  ...(turboFailed === 1 ? ["turbo failed although no test did: see above"] : []),
  "",
  `${passed} passed, ${failed + turboFailed} failed`,
];
process.stdout.write(`${lines.join("\n")}\n`);
process.exitCode = failed + turboFailed === 0 ? 0 : 1;
