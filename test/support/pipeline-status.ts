/** Waiting for a running Tallyhouse as an operator would: through its admin API. */
import { until } from "@tallyhouse/testkit";

interface Target {
  readonly url: string;
  readonly token: string;
}

/** Records that wait to be stored, and work that is due at Stripe. */
export async function readStatus({ url, token }: Target): Promise<{ readonly waiting: number; readonly due: number }> {
  const answer = await fetch(`${url}/admin/v1/status`, { headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`the status answers ${answer.status}`);
  return (await answer.json()) as { waiting: number; due: number };
}

/** Resolves when nothing waits in the log. */
export async function untilFolded(target: Target, timeoutMs = 60_000): Promise<void> {
  await until(async () => (await readStatus(target)).waiting === 0, { timeoutMs, what: "nothing waits in the log" });
}

/** Resolves when due work is empty and stays so over booking windows and report rounds: late marks would show in that time. */
export async function untilReported(target: Target, quietMs = 12_000): Promise<void> {
  let quietSince = performance.now();
  await until(
    async () => {
      if ((await readStatus(target)).due > 0) quietSince = performance.now();
      return performance.now() - quietSince > quietMs;
    },
    { timeoutMs: 180_000, what: "nothing is due at Stripe" },
  );
}
