/** What the tests of every workspace came to: read from the reports that vitest wrote, never from what it printed. */
import { readFileSync } from "node:fs";

/** The part of vitest's JSON report that is read here. */
export interface VitestReport {
  readonly success: boolean;
  /** Epoch milliseconds, before the first file is loaded. */
  readonly startTime: number;
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly status: string;
    readonly endTime: number;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** Null when the report is absent or cut short: {@link rowOf} turns that into a failure. */
export function readReport(path: string): VitestReport | null {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as VitestReport;
  } catch {
    return null;
  }
}

/** One line of the closing table. `problem` is null when the workspace is as it should be. */
export interface ReportRow {
  readonly workspace: string;
  readonly files: number;
  readonly tests: number;
  readonly passed: number;
  readonly failed: number;
  /** From the start of vitest to the end of the last file. */
  readonly elapsedMs: number;
  readonly problem: string | null;
}

/**
 * Judges one workspace. A missing report, a report without tests and a report of fewer files than the folder holds are
 * failures: a suite that did not run must never look like one that passed.
 */
export function rowOf(input: { workspace: string; testFileCount: number; report: VitestReport | null }): ReportRow {
  const { workspace, testFileCount, report } = input;
  const empty = { workspace, files: 0, tests: 0, passed: 0, elapsedMs: 0 };
  if (report === null) return { ...empty, failed: 1, problem: "wrote no result" };
  // A file that throws while it is loaded has no tests of its own to fail, so it counts as one failure.
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  ).length;
  const files = report.testResults.length;
  const failed = report.numFailedTests + broken;
  const tests = report.numPassedTests + report.numFailedTests;
  const endedAt = Math.max(...report.testResults.map((file) => file.endTime));
  const row = {
    workspace,
    files,
    tests,
    passed: report.numPassedTests,
    elapsedMs: files === 0 ? 0 : endedAt - report.startTime,
  };
  const isShort = files < testFileCount;
  if (failed > 0) return { ...row, failed, problem: "failed" };
  if (tests === 0) return { ...row, failed: 1, problem: "has test files but ran no test" };
  if (isShort) return { ...row, failed: 1, problem: `ran ${files} of ${testFileCount} test files` };
  if (!report.success) return { ...row, failed: 1, problem: "vitest reports an error outside the tests" };
  return { ...row, failed: 0, problem: null };
}

const HEADINGS = ["workspace", "files", "tests", "passed", "failed", "seconds", ""] as const;

/** The closing table as text lines; the first column left-aligned, figures right-aligned. */
export function tableOf(rows: readonly ReportRow[]): string[] {
  const cells = [
    HEADINGS,
    ...rows.map((row) => [
      row.workspace,
      String(row.files),
      String(row.tests),
      String(row.passed),
      String(row.failed),
      (row.elapsedMs / 1000).toFixed(1),
      row.problem ?? "",
    ]),
  ];
  const widths = HEADINGS.map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0)));
  return cells.map((line) =>
    line
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 || column === HEADINGS.length - 1 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
}
