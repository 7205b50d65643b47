/** A revision of this repository, checked out beside it and ready to run. */
import { execFileSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const LOCK = "package-lock.json";

/**
 * Checks the revision out into a temporary worktree. With an equal lock file its dependencies are ours, hard-linked; else they are
 * installed. `remove` takes the worktree away; `onStarted` gets it before anything is made, for a signal that comes meanwhile.
 * @throws {Error} when git knows no such revision.
 */
export function checkOut(input: { root: string; revision: string; onStarted(remove: () => void): void }): {
  readonly root: string;
  readonly remove: () => void;
} {
  const { root, revision } = input;
  const git = (...args: string[]): string =>
    execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
  const commit = git("rev-parse", "--verify", "--end-of-options", `${revision}^{commit}`);
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-revision-"));
  const tree = join(folder, "tree");
  const remove = (): void => {
    rmSync(folder, { recursive: true, force: true });
    git("worktree", "prune");
  };
  input.onStarted(remove);
  try {
    git("worktree", "add", "--detach", "--quiet", tree, commit);
    if (readFileSync(join(root, LOCK), "utf8") === readFileSync(join(tree, LOCK), "utf8")) linkDependencies(root, tree);
    else execFileSync("npm", ["ci"], { cwd: tree, stdio: ["ignore", "ignore", "inherit"] });
    return { root: tree, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** The links to workspaces are relative, so they lead to those of the new tree. */
function linkDependencies(root: string, tree: string): void {
  const folders = [
    "node_modules",
    ...globSync("{packages,services}/*/node_modules", { cwd: root }),
    "test/node_modules",
  ];
  for (const folder of folders) {
    if (!existsSync(join(root, folder)) || !existsSync(join(tree, dirname(folder)))) continue;
    execFileSync("cp", ["-al", join(root, folder), join(tree, folder)]);
  }
}
