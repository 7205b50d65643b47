import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { checkOut } from "./revision.ts";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A repository of two commits that differ in one file, with dependencies that no commit holds. */
function repository(): { root: string; git: (...args: string[]) => string } {
  const root = mkdtempSync(join(tmpdir(), "tallyhouse-revision-test-"));
  folders.push(root);
  const git = (...args: string[]): string =>
    execFileSync("git", ["-c", "user.name=test", "-c", "user.email=test@localhost", ...args], {
      cwd: root,
      encoding: "utf8",
      env: { PATH: process.env["PATH"] },
    });
  git("init", "--quiet");
  mkdirSync(join(root, "node_modules/some"), { recursive: true });
  writeFileSync(join(root, "node_modules/some/index.js"), "some");
  writeFileSync(join(root, ".gitignore"), "node_modules\n");
  writeFileSync(join(root, "package-lock.json"), "{}");
  for (const text of ["one", "two"]) {
    writeFileSync(join(root, "source.txt"), text);
    git("add", ".");
    git("commit", "--quiet", "-m", text);
  }
  return { root, git };
}

test("a revision is checked out with the dependencies of this tree, and leaves nothing behind", () => {
  const { root, git } = repository();
  const started: (() => void)[] = [];
  const checkout = checkOut({ root, revision: "HEAD~1", onStarted: (remove) => started.push(remove) });
  folders.push(join(checkout.root, ".."));
  expect(readFileSync(join(checkout.root, "source.txt"), "utf8")).toBe("one");
  const linked = join(checkout.root, "node_modules/some/index.js");
  expect(statSync(linked).ino).toBe(statSync(join(root, "node_modules/some/index.js")).ino);
  expect(started).toEqual([checkout.remove]);
  checkout.remove();
  expect(existsSync(join(checkout.root, ".."))).toBe(false);
  expect(git("worktree", "list").trim().split("\n")).toHaveLength(1);
  expect(readFileSync(join(root, "node_modules/some/index.js"), "utf8")).toBe("some");
});

test("a revision that does not exist is an error, and no option of git", () => {
  const { root, git } = repository();
  for (const revision of ["nowhere", "--output=stolen"])
    expect(() => checkOut({ root, revision, onStarted: () => expect.unreachable("nothing was made") })).toThrow(
      "Command failed: git rev-parse",
    );
  expect(git("worktree", "list").trim().split("\n")).toHaveLength(1);
});
