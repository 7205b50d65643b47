import { mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { removeFileNames, withNamelessFile } from "./nameless-file.ts";

const emptyFolder = async (): Promise<string> => mkdtemp(join(tmpdir(), "tallyhouse-nameless-"));

test("the bytes are read by the path, the folder shows no name, and the path ends with the call", async () => {
  const folder = await emptyFolder();
  const bytes = Buffer.from(Array.from({ length: 3_000_000 }, (_, n) => n % 251));
  let reached = "";
  await withNamelessFile(folder, bytes, async (path) => {
    reached = path;
    expect(await readdir(folder)).toEqual([]);
    // Twice, each from the start.
    for (let again = 0; again < 2; again += 1) expect((await readFile(path)).equals(bytes)).toBe(true);
  });
  await expect(readFile(reached)).rejects.toThrow(/ENOENT|EBADF/);
});

test("what the caller throws arrives unchanged, and the bytes are gone", async () => {
  const folder = await emptyFolder();
  const mine = new Error("mine");
  let reached = "";
  const using = withNamelessFile(folder, Buffer.from("rows"), async (path) => {
    reached = path;
    throw mine;
  });
  await expect(using).rejects.toBe(mine);
  await expect(readFile(reached)).rejects.toThrow(/ENOENT|EBADF/);
  expect(await readdir(folder)).toEqual([]);
});

test("names that a crash left are removed, other files and open bytes are not", async () => {
  const folder = await emptyFolder();
  await writeFile(join(folder, "insert-00000000-0000-0000-0000-000000000000"), "");
  await writeFile(join(folder, "status"), "PID: 1");
  await withNamelessFile(folder, Buffer.from("rows"), async (path) => {
    await removeFileNames(folder);
    expect(await readFile(path, "utf8")).toBe("rows");
  });
  expect(await readdir(folder)).toEqual(["status"]);
});
