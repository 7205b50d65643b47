/** `node infra/scripts/run-suite.ts NAME`: one of the suites that need servers. Ends with `N passed, N failed`. */
import { globSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { repositoryRoot, runCommand } from "./run-command.ts";
import { SUITE_VARIABLE, SUITES } from "./suites.ts";
import { readReport, reportPath, rowOf } from "./test-report.ts";

const [name] = process.argv.slice(2);
const suite = SUITES.find((each) => each.name === name);
if (suite === undefined) {
  process.stderr.write(`usage: run-suite.ts ${SUITES.map((each) => each.name).join("|")}\n`);
  process.exit(2);
}

const folder = join(repositoryRoot, suite.workspace);
const exclude = (each: string): boolean => each === "node_modules";
const testFileCount = globSync([...suite.include], { cwd: folder, exclude }).length;
rmSync(reportPath(folder), { force: true });
process.env[SUITE_VARIABLE] = suite.name;
const config = join(repositoryRoot, "vitest.config.ts");
const run = await runCommand("vitest", ["run", "--root", suite.workspace, "--config", config], { echo: true });
const { passed, failed, problem } = rowOf({
  workspace: suite.workspace,
  testFileCount: Math.max(1, testFileCount),
  report: readReport(folder),
});
const failedCount = run.exitCode !== 0 && failed === 0 ? 1 : failed;
if (problem !== null) process.stdout.write(`${suite.workspace}: ${problem}\n`);
process.stdout.write(`\n${passed} passed, ${failedCount} failed\n`);
process.exitCode = failedCount === 0 ? 0 : 1;
