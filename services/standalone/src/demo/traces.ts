/** Public traces as workloads. The files are given at run time and never a part of Tallyhouse. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { DAY_MS, floorTo, formatInstant, parseInstant } from "@tallyhouse/domain";
import type { DemoEvent, ExpectedTotal, Workload } from "./workload.ts";

export const TRACE_FORMATS = ["azure-llm", "apache-combined"] as const;
export type TraceFormat = (typeof TRACE_FORMATS)[number];

const FORMATS: Record<TraceFormat, { read(text: string): DemoEvent[]; metersFile: URL; span: "hour" | "day" }> = {
  "azure-llm": {
    read: readAzureLlm,
    metersFile: new URL("../../../../examples/meters.yaml", import.meta.url),
    span: "hour",
  },
  "apache-combined": {
    read: readApacheCombined,
    metersFile: new URL("../../../../examples/meters-web.yaml", import.meta.url),
    span: "day",
  },
};

/**
 * Reads a trace and the file of its exact totals, both shifted by whole days so that the last row falls yesterday.
 * @throws {Error} naming the line that cannot be read.
 */
export function readTrace(input: {
  tracePath: string;
  expectedPath: string;
  format: TraceFormat;
  nowAt: number;
}): Workload {
  const format = FORMATS[input.format];
  const original = format.read(readFileSync(input.tracePath, "utf8"));
  const instants = original.map((event) => instantOf(event.time));
  const lastAt = instants.reduce((latest, at) => Math.max(latest, at), Number.NEGATIVE_INFINITY);
  const shiftMs = floorTo(input.nowAt, DAY_MS) - DAY_MS - floorTo(lastAt, DAY_MS);
  const events = original.map((event, i) => {
    // Only the date changes: the digits behind the seconds stay as the publisher wrote them.
    const date = formatInstant((instants[i] as number) + shiftMs).slice(0, 10);
    return { ...event, time: date + event.time.slice(10) };
  });
  return {
    title: `${input.format} trace, ${events.length} rows`,
    metersFile: readFileSync(format.metersFile, "utf8"),
    events,
    expected: readExpected(readFileSync(input.expectedPath, "utf8"), shiftMs),
    span: format.span,
  };
}

function instantOf(time: string): number {
  const at = parseInstant(time);
  if (at === null) throw new Error(`no instant: ${time}`);
  return at;
}

function readAzureLlm(text: string): DemoEvent[] {
  const [, ...rows] = text.split("\r\n");
  return rows
    .filter((row) => row !== "")
    .map((row, i) => {
      const n = i + 1;
      const [stamp = "", context, generated] = row.split(",");
      const digest = createHash("sha256").update(`tallyhouse/conv/${n}`).digest("hex");
      return {
        id: `conv-${n}`,
        source: "/traces/azure-llm-2023/conv",
        customer: `cust-${String(BigInt(`0x${digest}`) % 50n).padStart(2, "0")}`,
        type: "llm.request",
        time: `${stamp.replace(" ", "T")}Z`,
        data: { inputTokens: Number(context), outputTokens: Number(generated) },
      };
    });
}

const APACHE_LINE =
  /^(\S+) \S+ \S+ \[(\d{2})\/(\w{3})\/(\d{4}):(\d{2}:\d{2}:\d{2}) \+0000\] "(\S+) (\S+)[^"]*" (\d{3}) (\d+|-)/;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function readApacheCombined(text: string): DemoEvent[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((line, i) => {
    const match = APACHE_LINE.exec(line);
    if (match === null) throw new Error(`line ${i + 1} is no combined log line`);
    const [, address = "", day, month = "", year, clock, method = "", path = "", status, bytes] = match;
    return {
      id: createHash("sha256").update(line, "latin1").digest("hex"),
      source: "/traces/elastic-apache-logs",
      customer: address,
      type: Number(status) < 400 ? "http.request" : "http.request.failed",
      time: `${year}-${String(MONTHS.indexOf(month) + 1).padStart(2, "0")}-${day}T${clock}Z`,
      data: { method, path, status: Number(status), bytes: bytes === "-" ? 0 : Number(bytes) },
    };
  });
}

/** `customer,meter,startUtc,quantity` with a header line. */
function readExpected(text: string, shiftMs: number): ExpectedTotal[] {
  const [, ...rows] = text.trimEnd().split("\n");
  return rows.map((row) => {
    const [customer = "", meter = "", start = "", quantity = ""] = row.split(",");
    return { customer, meter, startAt: instantOf(start) + shiftMs, quantity: BigInt(quantity) };
  });
}
