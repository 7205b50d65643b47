import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

it("loads under plain Node, which finds fewer names in kafkajs than the test runner does", async () => {
  const program = `import(${JSON.stringify(join(import.meta.dirname, "index.ts"))}).then((m) => console.log(typeof m.openKafkaLog))`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", program]);
  expect(stdout.trim()).toBe("function");
});
