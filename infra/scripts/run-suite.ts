/**
 * `node infra/scripts/run-suite.ts FOLDER`: one suite of test/ that needs more than Node and npm. Ends with
 * `N passed, N failed`; exit code 1 when anything failed, or when a file of the folder did not run.
 */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { repositoryRoot, runCommand } from "./run-command.ts";
import { rowOf, tableOf, type VitestReport } from "./test-report.ts";

const [suite = ""] = process.argv.slice(2);
const folder = join(repositoryRoot, "test", suite);
const testFileCount = readdirSync(folder).filter((name) => name.endsWith(".test.ts")).length;
const reportPath = join(repositoryRoot, ".test-results", `${suite}.json`);
rmSync(reportPath, { force: true });
await runCommand("vitest", ["run", "--root", "test", "--dir", folder, "--reporter=default", "--reporter=json", `--outputFile.json=${reportPath}`], {
  echo: true,
});
const row = rowOf({ workspace: `test/${suite}`, testFileCount, report: readReport() });
process.stdout.write(`${["", ...tableOf([row]), "", `${row.passed} passed, ${row.failed} failed`].join("\n")}\n`);
process.exitCode = row.failed === 0 ? 0 : 1;

function readReport(): VitestReport | null {
  try {
    return JSON.parse(readFileSync(reportPath, "utf8")) as VitestReport;
  } catch {
    return null; // Absent or cut short: rowOf turns it into a failure.
  }
}
