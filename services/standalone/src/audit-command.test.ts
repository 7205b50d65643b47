import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { audit } from "./audit-command.ts";

let server: Server | undefined;
afterEach(() => {
  server?.close();
});

/** A deployment that gives these answers, one after the other; what was asked of it. */
async function deployment(answers: readonly object[]) {
  const asked: string[] = [];
  let next = 0;
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString("utf8")));
    request.on("end", () => {
      asked.push(`${request.method} ${request.url} ${body}`.trim());
      response.end(JSON.stringify(answers[next]));
      next += 1;
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const printed: string[] = [];
  const complaints: string[] = [];
  const io = {
    env: { TALLYHOUSE_URL: `http://127.0.0.1:${port}`, TALLYHOUSE_TOKEN: "svc_live_th_x" },
    print: (text: string) => void printed.push(text),
    complain: (text: string) => void complaints.push(text),
  };
  return { asked, io, printed, complaints };
}

const clean = { check: "A1", rows: 12, differences: 0, seconds: 0.04, examples: [], statement: null };
const differs = {
  ...clean,
  check: "A4",
  differences: 3,
  examples: [{ meter: "tokens" }],
  statement: "SELECT 1\nFROM t",
};

test("a clean audit is a table and exit code 0", async () => {
  const { io, asked, printed } = await deployment([{ id: "1", state: "clean", checks: [clean] }]);
  expect(await audit([], io)).toBe(0);
  expect(asked).toEqual(["POST /admin/v1/audits {}"]);
  expect(printed.join("")).toBe("check  rows  differences  seconds\nA1       12            0      0.0\n");
});

test("on a terminal it shows which check runs, and clears it in the end", async () => {
  const running = { id: "7", state: "running", checks: null, progress: { check: "A4", done: 3, statements: 9 } };
  const { io } = await deployment([
    { ...running, progress: null },
    { audits: [running] },
    { audits: [{ ...running, progress: null }] },
    { audits: [{ id: "7", state: "clean", checks: [clean], progress: null }] },
  ]);
  const places: string[] = [];
  expect(await audit([], { ...io, show: (text) => void places.push(text) })).toBe(0);
  expect(places).toEqual(["A4: 3 of 9 statements done", "", ""]);
});

test("one that goes on is waited for; differing rows are shown with their statement, and the exit code is 1", async () => {
  const running = { id: "7", state: "running", checks: null };
  const done = { id: "7", state: "differs", checks: [clean, differs] };
  const { io, asked, printed } = await deployment([running, { audits: [running] }, { audits: [{ id: "8" }, done] }]);
  expect(await audit(["--check", "A1", "--check", "A4"], io)).toBe(1);
  expect(asked[0]).toBe('POST /admin/v1/audits {"checks":["A1","A4"]}');
  expect(asked).toHaveLength(3);
  expect(printed.join("")).toContain(
    'A4: 3 differ; docs/runbooks/audit.md says what that means. The first 1:\n  {"meter":"tokens"}\n',
  );
  expect(printed.join("")).toContain("found by:\n  SELECT 1\n  FROM t\n");
});

test("--json prints what the API said", async () => {
  const answer = { id: "1", state: "differs", checks: [differs] };
  const { io, printed } = await deployment([answer]);
  expect(await audit(["--json"], io)).toBe(1);
  expect(JSON.parse(printed.join(""))).toEqual(answer);
});

test("one that could not run, and a check that is not there, are 2", async () => {
  const { io, complaints } = await deployment([
    { id: "1", state: "failed", checks: null, failure: "the store was away" },
  ]);
  expect(await audit([], io)).toBe(2);
  expect(await audit(["--check", "A9"], io)).toBe(2);
  expect(complaints).toEqual([
    "the audit could not run to its end: the store was away\n",
    "there is no check A9: they are A1, A2, A3, A4, A5, A6, A7, A8\n",
  ]);
});
