/** Copies of the sources with a fault built in, made in a temporary folder; the sources themselves are never touched. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const FOLDERS = ["packages", "services", "infra", "test"] as const;
const FILES = ["package.json", "tsconfig.json", "vitest.config.ts"] as const;
/** Made by tools; a copy makes its own. */
const LEFT_OUT = new Set(["node_modules", ".turbo", ".test-results", "dist"]);

/** One replacement in one file. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** A tree that runs like the repository: its workspaces resolve to themselves, everything else to the installed packages. */
export async function copySources(root: string, edits: readonly Edit[]): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), "tallyhouse-mutant-"));
  try {
    await fill(copy, root, edits);
  } catch (error) {
    await removeCopy(copy);
    throw error;
  }
  return copy;
}

async function fill(copy: string, root: string, edits: readonly Edit[]): Promise<void> {
  for (const folder of FOLDERS)
    await cp(join(root, folder), join(copy, folder), {
      recursive: true,
      filter: (path) => !LEFT_OUT.has(basename(path)),
    });
  for (const file of FILES) await cp(join(root, file), join(copy, file));
  await linkPackages(root, copy);
  for (const edit of edits) await applyEdit(copy, edit);
}

/** Removes a copy. */
export function removeCopy(copy: string): Promise<void> {
  return rm(copy, { recursive: true, force: true });
}

async function linkPackages(root: string, copy: string): Promise<void> {
  const installed = join(root, "node_modules");
  const own = join(copy, "node_modules");
  await mkdir(join(own, "@tallyhouse"), { recursive: true });
  for (const name of await readdir(installed))
    if (name !== "@tallyhouse" && !name.startsWith(".vite")) await symlink(join(installed, name), join(own, name));
  for (const folder of FOLDERS.slice(0, 2))
    for (const name of await readdir(join(copy, folder)))
      await symlink(join(copy, folder, name), join(own, "@tallyhouse", name));
  for (const name of FOLDERS.slice(2)) await symlink(join(copy, name), join(own, "@tallyhouse", name));
}

/** @throws when the text to replace is not there exactly once: the fault would be another one, or none. */
async function applyEdit(copy: string, { file, find, replace }: Edit): Promise<void> {
  const path = join(copy, file);
  const text = await readFile(path, "utf8");
  const places = text.split(find).length - 1;
  if (places !== 1) throw new Error(`${file} holds the text to replace ${places} times, not once: ${find}`);
  await writeFile(
    path,
    text.replace(find, () => replace),
  );
}
