/** `tallyhouse rerate`: a closed period counted and rated anew, as a client of a running Tallyhouse. */
import { userInfo } from "node:os";
import { parseArgs } from "node:util";
import { type Environment, pause } from "@tallyhouse/runtime";
import { callApi } from "./client.ts";
import { UsageError } from "./meters-command.ts";

/** Lines of the usage text. */
export const RERATE_USAGE = `  tallyhouse rerate STATEMENT --reason R [--plan PLAN@VERSION] [--meter METER=VERSION]… [--actor A]
                                      count and rate a closed period anew; what differs becomes an adjustment`;

const POLL_MS = 500;
/** Two minutes: a round of the reporter, and a cut that the log has passed. The request stays when the command gives up. */
const POLLS_MAX = 240;

interface ShownRerate {
  readonly id: number;
  readonly state: "waiting" | "adjusted" | "unchanged" | "refused";
  readonly adjustment: string | null;
  readonly refusal: string | null;
}

/** The exit code: 0 done, 1 refused or still waiting. @throws {ApiError} what Tallyhouse refuses; {UsageError} wrong use. */
export async function runRerate(
  args: readonly string[],
  { env, write }: { readonly env: Environment; readonly write: (text: string) => void },
): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      plan: { type: "string" },
      meter: { type: "string", multiple: true },
      reason: { type: "string" },
      actor: { type: "string" },
    },
  });
  const [id, ...more] = positionals;
  if (id === undefined || more.length > 0) throw new UsageError("rerate needs the id of a statement");
  if (values.reason === undefined) throw new UsageError("--reason is required");
  let request = await callApi<ShownRerate>(env, {
    method: "POST",
    path: `/admin/v1/invoices/${encodeURIComponent(id)}/rerate`,
    body: {
      ...(values.plan === undefined ? {} : { plan: values.plan }),
      ...(values.meter === undefined ? {} : { meterVersions: meterVersionsOf(values.meter) }),
      reason: values.reason,
      actor: values.actor ?? userInfo().username,
    },
  });
  for (let poll = 0; request.state === "waiting" && poll < POLLS_MAX; poll += 1) {
    await pause(POLL_MS, new AbortController().signal);
    request = await callApi<ShownRerate>(env, { method: "GET", path: `/admin/v1/rerates/${request.id}` });
  }
  write(`${textOf(request)}\n`);
  return request.state === "adjusted" || request.state === "unchanged" ? 0 : 1;
}

function meterVersionsOf(texts: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    texts.map((text) => {
      const [, meter, version] = /^([a-z][a-z0-9_]*)=(\d{1,5})$/.exec(text) ?? [];
      if (meter === undefined) throw new UsageError("--meter is METER=VERSION, such as tokens=2");
      return [meter, Number(version)];
    }),
  );
}

function textOf({ id, state, adjustment, refusal }: ShownRerate): string {
  switch (state) {
    case "adjusted":
      return `adjusted: ${adjustment}`;
    case "unchanged":
      return "unchanged: no quantity and no amount differs";
    case "refused":
      return `refused: ${refusal}`;
    case "waiting":
      return `still waiting: request ${id} goes on; tallyhouse rerate again shows what became of it`;
  }
}
