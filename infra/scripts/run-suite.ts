/**
 * `node infra/scripts/run-suite.ts FOLDER`: one suite of test/ that needs more than Node and npm. Ends with
 * `N passed, N failed`; exit code 1 when anything failed, or when a file of the folder did not run.
 */
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { repositoryRoot, runCommand } from "./run-command.ts";
import { readReport, rowOf, tableOf } from "./test-report.ts";

const [suite = ""] = process.argv.slice(2);
const folder = join(repositoryRoot, "test", suite);
const testFileCount = readdirSync(folder).filter((name) => name.endsWith(".test.ts")).length;
// Beside the report of `npm test`, not in its place.
const report = join(repositoryRoot, ".test-results", `${suite}.json`);
rmSync(report, { force: true });
/** What the suite ran against, when it says so: a table of its own, beside the report. */
const ranAgainst = join(repositoryRoot, ".test-results", `${suite}-ran-against.txt`);
rmSync(ranAgainst, { force: true });
const config = join(repositoryRoot, "vitest.config.ts");
const run = await runCommand(
  "vitest",
  ["run", "--root", "test", "--config", config, "--dir", folder, `--outputFile.json=${report}`],
  { echo: true },
);
const row = rowOf({ workspace: `test/${suite}`, testFileCount, report: readReport(report) });
// Vitest's own verdict counts too: it knows of errors that belong to no file.
const failed = row.failed === 0 && run.exitCode !== 0 ? 1 : row.failed;
const against = existsSync(ranAgainst) ? ["", "ran against", readFileSync(ranAgainst, "utf8").trimEnd()] : [];
process.stdout.write(
  `${["", ...tableOf([row]), ...against, "", `${row.passed} passed, ${failed} failed`].join("\n")}\n`,
);
process.exitCode = failed === 0 ? 0 : 1;
