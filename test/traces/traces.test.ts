/**
 * Both public traces over HTTP: twice, shuffled, with duplicates, conflicts and records in wrong partitions. Every total
 * equals the expected file to the last digit. Needs TRACES_DIR; with KAFKA_BROKERS set the log is a real Kafka.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { partitionOfKey, recordKeyOf } from "@tallyhouse/domain";
import { auditPorts, startStandalone } from "@tallyhouse/standalone";
import {
  applyMeters,
  cloudEventOf,
  compareTotals,
  deliver,
  planDelivery,
  readTrace,
  seededRandom,
  waitForPipeline,
} from "@tallyhouse/standalone/demo";
import { Stripe } from "stripe";
import { expect, test } from "vitest";

const SEED = Number(process.env["SEED"] ?? 1);
const MISPLACED = 500;
const TIMEOUT_MS = 300_000;

function tracesFolder(): string {
  const folder = process.env["TRACES_DIR"];
  if (folder === undefined)
    throw new Error("set TRACES_DIR to the folder that holds the traces and their expected totals");
  return folder;
}

const traces = [
  { format: "azure-llm", trace: "AzureLLMInferenceTrace_conv.csv", expected: "expected-llm.csv", totals: 300 },
  { format: "apache-combined", trace: "apache_logs", expected: "expected-apache.csv", totals: 3_974 },
] as const;

test.each(traces)(
  "G1 G2 G4 $format: every total to the last digit, every fate as sent",
  { timeout: TIMEOUT_MS },
  async (trace) => {
    const nowAt = Date.now();
    const workload = readTrace({
      tracePath: join(tracesFolder(), trace.trace),
      expectedPath: join(tracesFolder(), trace.expected),
      format: trace.format,
      nowAt,
    });
    expect(workload.expected).toHaveLength(trace.totals);
    const folder = mkdtempSync(join(tmpdir(), "tallyhouse-traces-"));
    const env = {
      BOOKING_WINDOW_SECONDS: "5",
      REPORT_LATENESS_SECONDS: "0",
      REPORT_INTERVAL_MS: "500",
      SEND_RATE_PER_SECOND: "5000",
      CALL_RATE_PER_SECOND: "5000",
      EMULATOR_LIMITS: "off",
      LOG_LEVEL: "error",
      KAFKA_TOPIC: `usage.events.v1.traces-${randomUUID()}`,
      ...process.env,
      TALLYHOUSE_DATA: folder,
      TALLYHOUSE_PORT: "0",
      TALLYHOUSE_METERS: "none",
    };
    const standalone = await startStandalone(env);
    try {
      const { analytics, control, log } = standalone.ports;
      await applyMeters(standalone, workload.metersFile);
      const plan = planDelivery(workload.events, { seed: SEED, copies: 2, duplicateShare: 0.05, conflictShare: 0.01 });
      const random = seededRandom(SEED);
      const misplaced = Array.from({ length: MISPLACED }, () => {
        const event = workload.events[Math.floor(random() * workload.events.length)];
        if (event === undefined) throw new Error("empty trace");
        const key = recordKeyOf({ mode: standalone.mode, ...event });
        const partition = (partitionOfKey(key, log.partitionCount) + 1) % log.partitionCount;
        const value = Buffer.from(JSON.stringify({ ...cloudEventOf(event), mode: standalone.mode }));
        return { partition, key, value, headers: {} };
      });
      // Half of them before anything else, so that some identities are counted through their redirect.
      await log.append(misplaced.slice(0, MISPLACED / 2));
      await deliver(plan, { url: standalone.url, token: standalone.token, onProgress: () => undefined });
      await log.append(misplaced.slice(MISPLACED / 2));

      const identities = new Set(workload.events.map((event) => `${event.customer}\n${event.id}`)).size;
      const copies = plan.deliveries.length + MISPLACED;
      const settled = await waitForPipeline({
        analytics,
        control,
        log,
        mode: standalone.mode,
        countedEvents: identities,
        timeoutMs: TIMEOUT_MS / 2,
        onProgress: () => undefined,
      });
      const stripe = new Stripe("sk_live_traces", { ...standalone.emulator.stripeConfig, telemetry: false });
      const compared = await compareTotals({ workload, analytics, stripe, mode: standalone.mode });
      const different = compared.filter(
        (total) => total.expected !== total.counted || total.expected !== total.atStripe,
      );
      expect({ settled, different, totals: compared.length }).toEqual({
        settled: true,
        different: [],
        totals: trace.totals,
      });

      const statuses = await analytics.select<{ status: string; rows: string }>(
        "SELECT toString(status) AS status, toString(count()) AS rows FROM raw_events FINAL WHERE status != 'control' GROUP BY status",
      );
      expect(Object.fromEntries(statuses.map(({ status, rows }) => [status, Number(rows)]))).toEqual({
        counted: identities,
        duplicate: copies - identities,
        conflict: plan.conflicts.length,
        redirected: MISPLACED,
      });
      const { checks } = await auditPorts(standalone.ports, env);
      expect(checks.flatMap(({ examples }) => examples)).toEqual([]);
    } finally {
      await standalone.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
