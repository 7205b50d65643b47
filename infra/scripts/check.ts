/**
 * `npm run check`: everything that judges the tree without running the product. All checks run even if one fails; a tool's
 * output is shown only when it failed. Exit code 1 when any did.
 */
import process from "node:process";
import { runCommand } from "./run-command.ts";

const LINTED_FOLDERS = ["services", "packages", "infra", "test"];

const CHECKS: readonly { readonly name: string; readonly command: readonly [string, ...string[]] }[] = [
  { name: "format", command: ["oxfmt", "--check", "."] },
  { name: "lint", command: ["oxlint", "--type-aware", "--deny-warnings", ...LINTED_FOLDERS] },
  { name: "types", command: ["tsc", "--noEmit"] },
  { name: "boundaries", command: ["turbo", "boundaries"] },
  { name: "dead code", command: ["knip", "--no-progress"] },
  { name: "tidy", command: ["npm", "run", "--silent", "--workspace", "test", "tidy"] },
];

const failures: string[] = [];
for (const { name, command } of CHECKS) {
  const [tool, ...args] = command;
  const { exitCode, elapsedMs, output } = await runCommand(tool, args);
  const seconds = (elapsedMs / 1000).toFixed(1).padStart(6);
  process.stdout.write(
    `${exitCode === 0 ? "ok    " : "FAILED"}  ${name.padEnd(10)} ${seconds} s  ${command.join(" ")}\n`,
  );
  if (exitCode !== 0) failures.push(`\n── ${name} ──\n${output.trimEnd()}\n`);
}
process.stdout.write(failures.join(""));
process.exitCode = failures.length === 0 ? 0 : 1;
