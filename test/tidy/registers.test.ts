import { expect, test } from "vitest";
import { judge } from "./judge.ts";
import {
  environmentDrift,
  errorCodesWithoutRow,
  guaranteesWithoutTest,
  undocumentedVariables,
  withListedTests,
} from "./register-rules.ts";
import { treeOf } from "./tree.ts";

const codes =
  'export const ERROR_CODES = [\n  "LOG_GAP",\n] as const;\nexport const PROBLEM_CODES = ["BODY_INVALID"] as const;\n';

judge("error codes and their rows", errorCodesWithoutRow, {
  broken: {
    "packages/domain/src/errors.ts": codes,
    "docs/errors.md": "| code | meaning |\n|---|---|\n| `LOG_GAP` | a hole |\n| `GONE_LONG` | ? |\n",
  },
  problems: ["docs/errors.md has no row for BODY_INVALID", "docs/errors.md:4 explains GONE_LONG, which is no code"],
  kept: {
    "packages/domain/src/errors.ts": codes,
    "docs/errors.md": "| `LOG_GAP` | a hole |\n| `BODY_INVALID` | not JSON |\n",
  },
});

judge("guarantees and their tests", guaranteesWithoutTest, {
  broken: {
    "docs/guarantees.md":
      "# Guarantees\n\n## G1 Kept\n\nTests:\n\n- `test/e2e/gone.test.ts`\n\n## G2 Held by nothing\n\nTests:\n\n",
    "packages/x/src/a.test.ts": 'test("G1 holds", () => {});\n',
    "packages/x/src/b.test.ts": 'describe("G1: also", () => {});\ntest.each([1])(\n  "G1 G7 of nowhere", () => {});\n',
  },
  problems: [
    "packages/x/src/b.test.ts:2 tests G7, which docs/guarantees.md does not have",
    "docs/guarantees.md has G2, which no test holds",
    "docs/guarantees.md lists other tests than there are: npm run guarantees",
  ],
  kept: {
    "docs/guarantees.md": "## G1 Kept\n\nTests:\n\n- `packages/testkit/src/suite.ts`\n- `packages/x/src/a.test.ts`\n",
    "packages/x/src/a.test.ts":
      'test("G1 holds", () => {});\ntest("no number", () => {});\n// test("G9 in a comment")\n',
    "packages/testkit/src/suite.ts": "export function suite() { it(`G1 ${name}`, () => {}); }\n",
  },
});

test("the lists of tests are rewritten, the rest of the document stays", () => {
  const tree = treeOf({
    "docs/guarantees.md": "# Guarantees\n\n## G1 Kept\n\nWhy.\n\nTests:\n\n- `gone.test.ts`\n\nAfter.\n",
    "packages/x/src/a.test.ts": 'test("G1 holds", () => {});\n',
  });
  expect(withListedTests(tree)).toBe(
    "# Guarantees\n\n## G1 Kept\n\nWhy.\n\nTests:\n\n- `packages/x/src/a.test.ts`\n\nAfter.\n",
  );
});

const schema =
  "const ConfigSchema = z\n  .object({\n    /** Port. */\n    HTTP_PORT: z.coerce.number(),\n    LOG_DIR: z.string(),\n  });\nconst STATUS = { NOT_FOUND: 404 };\n";

judge("the environment and its schemas", environmentDrift, {
  broken: { "services/x/src/config.ts": schema, ".env.example": "HTTP_PORT=8080\n# GONE_LONG=1\n" },
  problems: [
    "services/x/src/config.ts:5 reads LOG_DIR, which .env.example does not show",
    ".env.example:2 shows GONE_LONG, which nothing reads",
  ],
  kept: {
    "services/x/src/config.ts": schema,
    ".env.example": "# Where the API listens.\nHTTP_PORT=8080\n# LOG_DIR=.tallyhouse\n",
  },
});

judge("doc comments on configuration keys", undocumentedVariables, {
  broken: { "services/x/src/config.ts": schema },
  problems: ["services/x/src/config.ts:5 reads LOG_DIR without a doc comment"],
  kept: { "services/x/src/config.ts": schema.replace("    LOG_DIR", "    /** Folder. */\n    LOG_DIR") },
});
