import { expect, test } from "vitest";
import { benchOptions, parseFigures, quantile } from "./options.ts";
import { memoryFigures } from "./processes.ts";
import { compareRuns, median, replaceGenerated, spreadText, tableOf } from "./report-table.ts";

test("a median is the middle value, or the mean of two, and of nothing an error", () => {
  expect(median([3, 1, 10])).toBe(3);
  expect(median([4, 1, 10, 2])).toBe(3);
  expect(median([7])).toBe(7);
  expect(() => median([])).toThrow("the median of nothing");
});

test("a quantile is a value that was measured", () => {
  expect([0, 0.5, 0.99, 1].map((share) => quantile([1, 2, 3, 4], share))).toEqual([1, 3, 4, 4]);
  expect(quantile([], 0.5)).toBe(0);
});

test("a spread shows one number for one run, and a dash for none", () => {
  expect(spreadText([])).toBe("–");
  expect(spreadText([44_721.4])).toBe("44,721");
  expect(spreadText([3, 1.256, 2])).toBe("2 (1.26–3)");
});

test("the table has a row for each benchmark, with what its runs have", () => {
  const runs = [
    {
      eventsPerSecond: 100,
      cpuMicrosecondsPerEvent: 9.5,
      proof: "audit",
      memoryMegabytes: { a: { peak: 10 } },
      p99Ms: 5,
    },
    {
      eventsPerSecond: 300,
      cpuMicrosecondsPerEvent: 9.1,
      proof: "audit",
      memoryMegabytes: { a: { peak: 12 } },
      p99Ms: 7,
    },
  ];
  const table = tableOf(
    [
      { command: "bench:one -- --log kafka", runs },
      { command: "bench:two", runs: [{ other: { p95: 1.5 }, seed: 3 }] },
      { command: "bench:three", runs: [{ monthP95Ms: 12, isClean: true, seed: 3 }] },
    ],
    [
      { key: "p99Ms", label: "request p99", unit: " ms" },
      { key: "other.p95", label: "read p95", unit: " ms" },
    ],
  );
  expect(table.split("\n").slice(2)).toEqual([
    "| `bench:one -- --log kafka` | 200 (100–300) | 9.3 (9.1–9.5) | a 12 | request p99 6 ms | audit | 2 |",
    "| `bench:two` | – | – | – | read p95 1.5 ms | its own | 1 |",
    "| `bench:three` | – | – | – | monthP95Ms 12 | its own | 1 |",
  ]);
});

test("only what stands between the markers is replaced", () => {
  const document = "# Title\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nkept\n";
  const replaced = "# Title\n\n<!-- bench:begin -->\n\nnew\n\n<!-- bench:end -->\n\nkept\n";
  expect(replaceGenerated(document, "new\n")).toBe(replaced);
  expect(replaceGenerated(replaced, "new")).toBe(replaced);
  expect(() => replaceGenerated("no markers", "new")).toThrow("has no <!-- bench:begin -->");
  expect(() => replaceGenerated("<!-- bench:end --> <!-- bench:begin -->", "new")).toThrow("before <!-- bench:end -->");
});

test("a comparison shows medians and ratios of every number that both have", () => {
  const lines = compareRuns(
    [
      { eventsPerSecond: 100, cpu: { a: 2 }, gone: 1, log: "kafka" },
      { eventsPerSecond: 300, cpu: { a: 4 } },
    ],
    [{ eventsPerSecond: 500, cpu: { a: 0 }, fresh: 1, log: "kafka" }],
  );
  expect(lines.map((line) => line.replaceAll(/\s+/g, " "))).toEqual([
    "eventsPerSecond 200 (100–300) → 500 × 2.500",
    "cpu.a 3 (2–4) → 0 × 0.000",
  ]);
  expect(compareRuns([{ zero: 0 }], [{ zero: 2 }])[0]).toMatch(/–$/);
});

test("figures are the JSON object on the last line", () => {
  expect(parseFigures('progress\n{"old":1}\n{"bench":"x","n":2}\n')).toEqual({ bench: "x", n: 2 });
  for (const output of ["", "text", "[1]", "1", "null", '{"cut":'])
    expect(() => parseFigures(output)).toThrow("the last line is no JSON object");
});

test("options have their defaults, and what is wrong is named", () => {
  const defaults = { events: 10, seconds: 20, rate: 5, audit: ["full", "count"] } as const;
  expect(benchOptions(defaults, [])).toEqual({
    seed: 1,
    log: "embedded",
    events: 10,
    seconds: 20,
    rate: 5,
    audit: "full",
  });
  const given = ["--seed", "7", "--log", "kafka", "--rate", "0", "--audit=count"];
  expect(benchOptions(defaults, given)).toMatchObject({ seed: 7, log: "kafka", rate: 0, audit: "count" });
  expect(() => benchOptions(defaults, ["--rate", "-1x"])).toThrow("--rate");
  expect(() => benchOptions(defaults, ["--rate", "1.5"])).toThrow("--rate takes a whole number");
  expect(() => benchOptions(defaults, ["--log", "redis"])).toThrow("--log is embedded or kafka");
  expect(() => benchOptions(defaults, ["--audit", "none"])).toThrow("--audit is full or count");
  expect(() => benchOptions(defaults, ["--customers", "5"])).toThrow("--customers");
});

test("memory is the mean of the first and the last span, and the most", () => {
  const points = [100e6, 200e6, 900e6, 300e6, 500e6].map((bytes, second) => ({ atMs: second * 1_000, bytes }));
  expect(memoryFigures(points, { spanMs: 1_000, endMs: 4_000 })).toEqual({
    firstMinute: 150,
    lastMinute: 400,
    peak: 900,
  });
  expect(memoryFigures([], { spanMs: 1_000, endMs: 4_000 })).toEqual({ firstMinute: 0, lastMinute: 0, peak: 0 });
});
