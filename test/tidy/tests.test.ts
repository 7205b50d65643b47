import { judge } from "./judge.ts";
import { emptyTests, sleepsInTests, testsNotRun } from "./test-rules.ts";

judge("tests that do not run", testsNotRun, {
  broken: {
    "packages/x/src/a.test.ts":
      'test.skip("a", f);\ndescribe.only("b", f);\nit.todo("c");\ntest.concurrent.skipIf(x)("d", f);\nxit("e", f);\n',
  },
  problems: [
    "packages/x/src/a.test.ts:1 uses skip: a test runs or is not there",
    "packages/x/src/a.test.ts:2 uses only: a test runs or is not there",
    "packages/x/src/a.test.ts:3 uses todo: a test runs or is not there",
    "packages/x/src/a.test.ts:4 uses skipIf: a test runs or is not there",
    "packages/x/src/a.test.ts:5 uses xit: a test runs or is not there",
  ],
  kept: { "packages/x/src/a.test.ts": 'test("skips .only and test.skip(", f);\nbatch.skip(1);\n// test.only(x)\n' },
});

judge("tests that sleep", sleepsInTests, {
  broken: {
    "packages/x/src/a.test.ts":
      'await new Promise((resolve) => setTimeout(resolve, 500));\nawait pause(20);\nimport { setTimeout } from "node:timers/promises";\nsetTimeout(() => stop(), 10);\n',
  },
  problems: [
    "packages/x/src/a.test.ts:1 waits for time instead of a condition",
    "packages/x/src/a.test.ts:2 waits for time instead of a condition",
    "packages/x/src/a.test.ts:3 waits for time instead of a condition",
    "packages/x/src/a.test.ts:4 waits for time instead of a condition",
  ],
  kept: {
    "packages/x/src/a.test.ts": "await until(() => seen.length === 3);\nsetTimeout(resolve, 0);\nlog.pause(1);\n",
    "test/chaos/kill.test.ts": "// time passes here: the kill comes at a random moment\nawait pause(random() * 500);\n",
    "services/x/src/a.ts": "await pause(20);\n",
  },
});

judge("tests that hold nothing", emptyTests, {
  broken: {
    "packages/x/src/a.test.ts": 'vi.mock("x");\nconst f = vi.fn();\nexpect(true).toBe(true);\nexpect(result);\n',
  },
  problems: [
    "packages/x/src/a.test.ts:1 uses vi.mock: pass another port",
    "packages/x/src/a.test.ts:2 uses vi.fn: pass another port",
    "packages/x/src/a.test.ts:3 expects what cannot fail",
    "packages/x/src/a.test.ts:4 expects what cannot fail",
  ],
  kept: { "packages/x/src/a.test.ts": 'expect(result).toBe(true);\nexpect(isOpen(x)).toBe(false);\n// vi.mock("x")\n' },
});
