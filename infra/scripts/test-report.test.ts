import { expect, test } from "vitest";
import { rowOf, tableOf, type VitestReport } from "./test-report.ts";

type FileReport = VitestReport["testResults"][number];

function fileReport(statuses: readonly string[], given: Partial<FileReport> = {}): FileReport {
  return {
    status: statuses.includes("failed") ? "failed" : "passed",
    endTime: 3500,
    assertionResults: statuses.map((status) => ({ status })),
    ...given,
  };
}

function report(files: readonly FileReport[], given: Partial<VitestReport> = {}): VitestReport {
  const statuses = files.flatMap((file) => file.assertionResults.map((result) => result.status));
  return {
    startTime: 1000,
    success: files.every((file) => file.status === "passed"),
    numPassedTests: statuses.filter((status) => status === "passed").length,
    numFailedTests: statuses.filter((status) => status === "failed").length,
    testResults: files,
    ...given,
  };
}

const judge = (given: VitestReport | null, testFileCount = 1) =>
  rowOf({ workspace: "packages/x", testFileCount, report: given });

test("a workspace whose tests all passed is counted", () => {
  expect(judge(report([fileReport(["passed", "passed"])]))).toEqual({
    workspace: "packages/x",
    files: 1,
    tests: 2,
    passed: 2,
    failed: 0,
    elapsedMs: 2500,
    problem: null,
  });
});

test("a workspace without a report failed", () => {
  expect(judge(null)).toMatchObject({ passed: 0, failed: 1, problem: "wrote no result" });
});

test("a workspace whose files held no test failed", () => {
  expect(judge(report([fileReport([])]))).toMatchObject({ failed: 1, problem: "has test files but ran no test" });
});

test("fewer files than the folder holds failed", () => {
  expect(judge(report([fileReport(["passed"])]), 2)).toMatchObject({ failed: 1, problem: "ran 1 of 2 test files" });
});

test("a file that could not be loaded counts as one failure beside its neighbours' tests", () => {
  const broken = report([fileReport(["passed"]), fileReport([], { status: "failed" })]);
  expect(judge(broken, 2)).toMatchObject({ passed: 1, failed: 1, problem: "failed" });
});

test("an error outside the tests fails a workspace whose tests all passed", () => {
  expect(judge(report([fileReport(["passed"])], { success: false }))).toMatchObject({
    failed: 1,
    problem: "vitest reports an error outside the tests",
  });
});

test("the table has one aligned line for each workspace, with its problem at the end", () => {
  const rows = [judge(report([fileReport(["passed", "failed"])])), judge(null)];
  expect(tableOf(rows)).toEqual([
    "workspace   files  tests  passed  failed  seconds",
    "packages/x      1      2       1       1      2.5  failed",
    "packages/x      0      0       0       1      0.0  wrote no result",
  ]);
});
