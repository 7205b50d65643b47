/** docs/producers.md as printed: its commands, its program, its SQL, and that it names every fate. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kafkaJars } from "@tallyhouse/infra/local/kafka-jars.ts";
import { afterAll, beforeAll, expect, it } from "vitest";
import { requireKcat, run } from "./clients.ts";
import { ODD_RECORDS } from "./odd-records.ts";
import { startWorld, type World } from "./world.ts";

const text = readFileSync(new URL("../../docs/producers.md", import.meta.url), "utf8");
/** The test workspace: a program given with -e finds kafkajs from there. */
const workspace = new URL("../", import.meta.url).pathname;

let world: World;
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-documented-"));
beforeAll(async () => {
  world = await startWorld();
}, 120_000);
afterAll(async () => {
  await world.stop();
  rmSync(folder, { recursive: true, force: true });
});

function blocks(language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))].map(([, block = ""]) => block);
}

it("G1 G2 every example, run twice, counts once and needs no redirect; every query answers", async () => {
  const env = { KAFKA_BROKERS: world.brokers, KAFKA_TOPIC: world.topic, KAFKA_JARS: await kafkaJars() };
  await requireKcat();
  writeFileSync(join(folder, "producer.properties"), blocks("properties").join(""));
  const commands = blocks("sh");
  expect([blocks("js").length, commands.length]).toEqual([1, 3]);
  // Twice, but the program, which has a new time each time: its second copy is another statement.
  for (const command of [...commands, ...commands]) await run("sh", { args: ["-ec", command], env, cwd: folder });
  const [program = ""] = blocks("js");
  await run("node", { args: ["--input-type=module", "-e", program], env, cwd: workspace });
  const fates = await world.fates();
  const ids = fates.filter(({ status }) => status === "counted").map(({ id }) => id);
  expect(ids.toSorted()).toEqual(["call-1", "call-2", "call-3", "call-4"]);
  expect(
    fates
      .filter(({ status }) => status === "duplicate")
      .map(({ id }) => id)
      .toSorted(),
  ).toEqual(ids.toSorted().slice(1));
  expect(fates).toHaveLength(7);
  expect(await world.totals()).toEqual({ "acme calls": "4" });

  const [byIdentity = "", ...others] = blocks("sql");
  const { analytics } = world.standalone.ports;
  expect(await analytics.select(byIdentity)).toMatchObject([{ status: "counted", reason: "" }]);
  expect(others).toHaveLength(2);
  for (const query of others) await expect(analytics.select(query)).resolves.toBeInstanceOf(Array);
}, 180_000);

it("every fate of a record is explained", () => {
  const words = new Set(ODD_RECORDS.flatMap(({ fate }) => fate.split(/[ :]/)).filter((word) => word !== "tokens"));
  for (const word of ["duplicate", "conflict", "redirected", "control", "marker"]) words.add(word);
  expect([...words].filter((word) => !text.includes(`\`${word}`))).toEqual([]);
});
