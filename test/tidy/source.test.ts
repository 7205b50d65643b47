import { judge } from "./judge.ts";
import {
  badFileNames,
  bareUnits,
  importsOutOfPlace,
  processOutsideMain,
  undocumentedExports,
  unlinkedNotes,
  unreasonedSuppressions,
} from "./source-rules.ts";

judge("units at the end of names", bareUnits, {
  broken: {
    "packages/x/src/a.ts":
      "interface A {\n  timeout: number;\n  readonly batchSize?: number;\n}\nf((interval: number) => 1);\n",
    "services/x/src/config.ts": "z.object({ size: z.int() })\n",
  },
  problems: [
    "packages/x/src/a.ts:2 declares timeout without a unit (timeoutMs, timeoutBytes …)",
    "packages/x/src/a.ts:3 declares batchSize without a unit (batchSizeMs, batchSizeBytes …)",
    "packages/x/src/a.ts:5 declares interval without a unit (intervalMs, intervalBytes …)",
    "services/x/src/config.ts:1 declares size without a unit (sizeMs, sizeBytes …)",
  ],
  kept: {
    "packages/x/src/a.ts":
      "interface A { timeoutMs: number; batchSizeEvents: number; message: string; usage: number }\n" +
      "// timeout: number\nclient({ timeout: 20_000, maxAge: limits.x }); const size = 3; if (map.size === 0) f(map.size);\n",
    "packages/x/src/a.test.ts": "const timeout = 5;\n",
  },
});

judge("doc comments on exports of packages", undocumentedExports, {
  broken: {
    "packages/x/src/a.ts":
      "/** A. */\nexport const a = 1;\nexport function b(): void {}\n// not one\nexport interface C {}\n",
  },
  problems: [
    "packages/x/src/a.ts:3 exports b without a doc comment",
    "packages/x/src/a.ts:5 exports C without a doc comment",
  ],
  kept: {
    "packages/x/src/a.ts":
      "/** A. */\nexport const A = [1] as const;\nexport type A1 = (typeof A)[number];\n/**\n * B.\n */\n" +
      "export async function b(x: string): void;\nexport async function b(x: number): void;\nexport { c } from './c.ts';\n",
    "packages/x/src/a.test.ts": "export const t = 1;\n",
    "services/x/src/a.ts": "export const s = 1;\n",
  },
});

judge("notes of things to do", unlinkedNotes, {
  broken: { "packages/x/src/a.ts": "// TODO: later\n", "docs/a.md": "TODO\n" },
  problems: [
    "packages/x/src/a.ts:1 leaves something to do without an issue",
    "docs/a.md:1 leaves something to do without an issue",
  ],
  kept: { "packages/x/src/a.ts": "// TODO https://example.org/x/issues/12: later\nconst text = 'TODO';\n" },
});

judge("reasons of suppressions", unreasonedSuppressions, {
  broken: {
    "packages/x/src/a.ts": `// oxlint-disable-next-line max-lines\n// oxlint-disable-next-line max-lines -- no\n// @ts-expect-error\n// @ts-ignore\n`,
  },
  problems: [
    "packages/x/src/a.ts:1 switches a check off without a reason",
    "packages/x/src/a.ts:2 switches a check off without a reason",
    "packages/x/src/a.ts:3 switches a check off without a reason",
    "packages/x/src/a.ts:4 uses @ts-ignore: name the one error with @ts-expect-error",
  ],
  kept: {
    "packages/x/src/a.ts":
      `// oxlint-disable-next-line max-lines -- a table of states reads better whole\n` +
      `// @ts-expect-error the library's type lacks the field it documents\n`,
  },
});

judge("process only at the edge", processOutsideMain, {
  broken: {
    "packages/x/src/a.ts": 'import process from "node:process";\nprocess.exit(1);\n',
    "services/x/src/config.ts": 'const a = process.env["A"];\n',
  },
  problems: [
    "packages/x/src/a.ts:1 imports process",
    "packages/x/src/a.ts:2 uses process",
    "services/x/src/config.ts:1 uses process",
  ],
  kept: {
    "services/x/src/main.ts": 'import process from "node:process";\nprocess.exitCode = 1;\n',
    "services/x/src/command-line.ts": "process.env\n",
    "packages/x/src/a.ts": '// process.env\nconst text = "process.env"; this.process.run();\n',
    "infra/local/x.ts": "process.env\n",
    "packages/x/src/fixtures/killed.ts": "process.exit(1);\n",
    "packages/x/src/lock.ts": "process.kill(holder, 0); process.memoryUsage();\n",
  },
});

judge("imports of adapters, the testkit, the emulator and test code", importsOutOfPlace, {
  broken: {
    "services/x/src/fold.ts":
      'import { open } from "@tallyhouse/eventlog";\nimport { drive } from "./testing/drive.ts";\n',
    "services/x/src/ports.ts": 'import { start } from "@tallyhouse/stripe-emulator";\n',
    "packages/x/src/a.ts": 'import { until } from "@tallyhouse/testkit";\n',
  },
  problems: [
    "services/x/src/fold.ts:1 imports the adapter eventlog: only main.ts and ports.ts may",
    "services/x/src/fold.ts:2 imports ./testing/drive.ts: only tests may",
    "services/x/src/ports.ts:1 imports @tallyhouse/stripe-emulator: only tests may",
    "packages/x/src/a.ts:1 imports @tallyhouse/testkit: only tests may",
  ],
  kept: {
    "services/x/src/ports.ts": 'import { open } from "@tallyhouse/eventlog";\n',
    "services/x/src/fold.test.ts": 'import { until } from "@tallyhouse/testkit";\n',
    "services/x/src/testing/drive.ts": 'import { start } from "@tallyhouse/stripe-emulator";\n',
    "services/x/src/test-support.ts": 'import { open } from "@tallyhouse/eventlog";\n',
    "services/x/src/fold.ts": 'import type { EventLog } from "@tallyhouse/domain";\n',
    "services/standalone/src/app.ts": 'import { start } from "@tallyhouse/stripe-emulator";\n',
  },
});

judge("names of files", badFileNames, {
  broken: {
    "packages/x/src/EventLog.ts": "",
    "packages/x/src/utils.ts": "",
    "services/x/src/main.ts": "x\n".repeat(41),
  },
  problems: [
    "packages/x/src/EventLog.ts is not named in kebab-case",
    "packages/x/src/utils.ts is named for no thing",
    "services/x/src/main.ts has 41 lines, more than 40",
  ],
  kept: {
    "packages/x/src/event-log.property.test.ts": "",
    "infra/clickhouse/0001_first.sql": "",
    "services/x/src/main.ts": "x\n".repeat(40),
  },
});
