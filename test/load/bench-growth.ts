/**
 * `npm run bench:growth -- --steps 1000000,3000000,10000000 --customers N --seed S`: what grows with the number of usage events. For each
 * step a month of so many events is stored by SQL (stored-usage.ts) in a process and folder of its own and asked about, as bench:query does it. Prints
 * a table, writes docs/growth.svg, and ends with one JSON object with every figure.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { growthSvg, type GrowthStep } from "./growth-svg.ts";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "1000000,3000000,10000000" },
    customers: { type: "string", default: "10000" },
    seed: { type: "string", default: "1" },
    out: { type: "string", default: fileURLToPath(new URL("../../docs/growth.svg", import.meta.url)) },
  },
});
if (!/^\d{5,9}(?:,\d{5,9})*$/.test(values.steps))
  throw new Error("--steps takes whole numbers of events, from 10,000 on: 1000000,3000000");

/** Runs bench:query in a process of its own, so that memory is that of one step. */
async function measure(events: string): Promise<GrowthStep> {
  const script = fileURLToPath(new URL("bench-query.ts", import.meta.url));
  const args = [script, "--events", events, "--customers", values.customers, "--seed", values.seed];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  process.once("SIGINT", () => child.kill("SIGINT"));
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`bench:query with ${events} usage events ended with ${code}`);
  return JSON.parse(output.trimEnd().split("\n").at(-1) ?? "") as GrowthStep;
}

const steps: GrowthStep[] = [];
for (const events of values.steps.split(",")) steps.push(await measure(events));
const columns: readonly [string, (step: GrowthStep) => number][] = [
  ["usage events", (step) => step.events],
  ["stored/s, by SQL", (step) => step.storedPerSecond],
  ["peak RSS, MB", (step) => step.peakRssMegabytes],
  ["disk, B per event", (step) => step.diskBytesPerEvent],
  ["month by hour p50 / p95, merged, ms", (step) => step.mergedMonthByHourP50Ms],
  ["", (step) => step.mergedMonthByHourP95Ms],
  ["during inserts, ms", (step) => step.ingestMonthByHourP50Ms],
  ["", (step) => step.ingestMonthByHourP95Ms],
  ["bill p95, ms", (step) => step.mergedBillP95Ms],
  ["top customers p50, ms", (step) => step.mergedTopCustomersP50Ms],
];
const cells = steps.map((step) => {
  const texts: string[] = [];
  for (const [name, read] of columns) {
    const text = read(step).toLocaleString("en");
    if (name === "") texts.push(`${texts.pop()} / ${text}`);
    else texts.push(text);
  }
  return `| ${texts.join(" | ")} |`;
});
const names = columns.map(([name]) => name).filter((name) => name !== "");
process.stdout.write(`| ${names.join(" | ")} |\n|${names.map(() => "---:|").join("")}\n${cells.join("\n")}\n`);
writeFileSync(values.out, growthSvg(steps));
process.stdout.write(
  `${JSON.stringify({ bench: "growth", seed: Number(values.seed), customers: Number(values.customers), cores: cpus().length, steps })}\n`,
);
