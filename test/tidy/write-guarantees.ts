/** `npm run guarantees`: brings the lists of tests in docs/guarantees.md up to date. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { withListedTests } from "./register-rules.ts";
import { readRepository, ROOT } from "./tree.ts";

writeFileSync(join(ROOT, "docs", "guarantees.md"), withListedTests(readRepository()));
