/** The workspaces of the tree and the test files that `npm test` runs. */
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One workspace of the root package.json. */
export interface Workspace {
  /** Relative to the root, with forward slashes. */
  readonly folder: string;
  readonly name: string;
  readonly testFiles: readonly string[];
}

/** Folders of test/ with commands of their own: they need servers (run-suite.ts), or are a part of `npm run check` (tidy). */
const OTHER_COMMANDS: ReadonlySet<string> = new Set([
  "audit",
  "integration",
  "kill",
  "load",
  "openapi",
  "producers",
  "tidy",
  "traces",
]);

/** Every workspace of a tree, sorted by folder. Throws when a package.json cannot be read. */
export function readWorkspaces(root: string): Workspace[] {
  const { workspaces } = readPackage(root);
  return globSync(
    (workspaces ?? []).map((pattern) => `${pattern}/package.json`),
    { cwd: root },
  )
    .map((path) => path.replaceAll("\\", "/").replace(/\/package\.json$/, ""))
    .sort()
    .map((folder) => ({
      folder,
      name: readPackage(join(root, folder)).name,
      testFiles: globSync("**/*.test.ts", {
        cwd: join(root, folder),
        exclude: (name) => name === "node_modules" || OTHER_COMMANDS.has(name),
      }).sort(),
    }));
}

/** The names of the scripts of a folder's package.json. */
export function readScriptNames(folder: string): string[] {
  return Object.keys(readPackage(folder).scripts ?? {});
}

interface PackageFile {
  readonly name: string;
  readonly workspaces?: readonly string[];
  readonly scripts?: Readonly<Record<string, string>>;
}

function readPackage(folder: string): PackageFile {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as PackageFile;
}
