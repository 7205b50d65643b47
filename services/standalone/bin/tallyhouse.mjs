#!/usr/bin/env node
// Plain JavaScript on purpose: an older Node must reach the sentence below instead of a syntax error.
import process from "node:process";

const wanted = 24;
const major = Number(process.versions.node.split(".")[0]);
if (major < wanted) {
  process.stderr.write(
    `Tallyhouse needs Node ${wanted}, and this is Node ${process.versions.node}. ` +
      "Run it through npm (npm start, npx tallyhouse …) after npm ci: the repository brings its own Node.\n",
  );
  process.exit(1);
}
const { runCommandLine } = await import("../src/command-line.ts");
await runCommandLine();
