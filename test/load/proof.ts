/** What makes a figure count: everything that was accepted is found afterwards, and the audit finds no row that differs. */
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import { auditPorts } from "@tallyhouse/standalone";

/** What must be found. */
export interface Expected {
  /** Distinct identities. */
  readonly identities: number;
  /** Records in the log that are usage events, repeats and all; null when repeats of a retry may stand there too. */
  readonly stored: number | null;
  /** Sum of the meter `input_tokens`. */
  readonly inputTokens: number;
}

/** Compares three counts. An identity counts once only if the sum is right, too. */
export async function proveCounted(analytics: AnalyticsStore, expected: Expected): Promise<string[]> {
  const partitions = await analytics.select<{ partition: number }>(
    "SELECT DISTINCT logPartition AS partition FROM progress ORDER BY partition",
  );
  const found = { counted: 0, stored: 0 };
  // One at a time: over ten minutes of load a single statement would meet the limit of a SELECT over HTTP.
  for (const { partition } of partitions) {
    const [rows] = await analytics.select<{ counted: string; stored: string }>(
      `SELECT toString(countIf(status = 'counted')) AS counted, toString(countIf(status != 'control')) AS stored
       FROM raw_events FINAL WHERE logPartition = {partition:UInt16}`,
      { partition },
    );
    found.counted += Number(rows?.counted);
    found.stored += Number(rows?.stored);
  }
  const [used] = await analytics.select<{ inputTokens: string }>(
    "SELECT toString(sum(sumQty)) AS inputTokens FROM usage WHERE meter = 'input_tokens'",
  );
  const differences: string[] = [];
  if (found.counted !== expected.identities)
    differences.push(`${found.counted} usage events are counted, not ${expected.identities}`);
  if (expected.stored !== null && found.stored !== expected.stored)
    differences.push(`${found.stored} records are stored, not ${expected.stored}`);
  if (Number(used?.inputTokens) !== expected.inputTokens)
    differences.push(`the meter's sum is ${used?.inputTokens}, not ${expected.inputTokens}`);
  return differences;
}

/** Runs every check of the audit on stores that nothing writes to. */
export async function audited(
  ports: { readonly analytics: AnalyticsStore; readonly log: EventLog },
  env: Readonly<NodeJS.ProcessEnv>,
): Promise<readonly string[]> {
  const { checks } = await auditPorts(ports, env);
  return checks
    .filter(({ differences }) => differences > 0)
    .map(
      ({ check, differences, examples }) => `${check}: ${differences} differ, such as ${JSON.stringify(examples[0])}`,
    );
}
