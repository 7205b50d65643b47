/**
 * Every workspace's door loads in Node itself, and loading has no lasting effect: the process ends by itself. The test runner
 * transforms imports, and so lets names pass that Node refuses, such as most names of a CommonJS module.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { readRepository, ROOT } from "./tree.ts";

const TIMEOUT_MS = 20_000;

async function load(url: string): Promise<string> {
  const program = `await import(${JSON.stringify(url)})`;
  try {
    await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], { timeout: TIMEOUT_MS });
    return "loaded";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const doors = [...readRepository()]
  .filter(([path]) => /^(?:packages|services)\/[^/]+\/package\.json$/.test(path))
  .flatMap(([path, text]) => {
    const { exports: exported = {} } = JSON.parse(text) as { exports?: Record<string, string> };
    return Object.values(exported).map((door) => join(path, "..", door));
  });

test.each(doors)("%s loads in Node", async (door) => {
  expect(await load(new URL(`file://${join(ROOT, door)}`).href)).toBe("loaded");
});

test("a module that imports a name which is not there does not load", async () => {
  expect(await load('data:text/javascript,import { nothing } from "node:fs";')).toContain("nothing");
});

test("a module that keeps the process alive does not load", async () => {
  const url =
    "data:text/javascript,process.once('SIGTERM', () => process.exit(7)); setTimeout(() => process.exit(7), 300);";
  expect(await load(url)).not.toBe("loaded");
});
