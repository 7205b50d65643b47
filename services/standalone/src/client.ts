/** The command line as a client of a running Tallyhouse. */
import { readOperatorKey } from "./data-folder.ts";
import { parseJson } from "@tallyhouse/domain";
import type { Environment } from "@tallyhouse/runtime";

/** An answer that is no success, told as the API told it. */
export class ApiError extends Error {
  override readonly name = "ApiError";
}

const TIMEOUT_MS = 30_000;

/** `TALLYHOUSE_TOKEN`, or the operator's token of the data folder; null when there is neither. */
export function tokenOf(env: Environment): string | null {
  return env["TALLYHOUSE_TOKEN"] ?? readOperatorKey(env["TALLYHOUSE_DATA"] ?? ".tallyhouse");
}

/** Sends JSON to the gateway of `TALLYHOUSE_URL` (default: the local standalone) with `TALLYHOUSE_TOKEN` (default: operator-key). */
export async function callApi<Answer>(
  env: Environment,
  request: { method: "GET" | "POST"; path: string; body?: unknown },
): Promise<Answer> {
  const base = env["TALLYHOUSE_URL"] ?? `http://127.0.0.1:${env["TALLYHOUSE_PORT"] ?? "8080"}`;
  const folder = env["TALLYHOUSE_DATA"] ?? ".tallyhouse";
  const token = tokenOf(env);
  if (token === null) {
    throw new ApiError(
      `no token: set TALLYHOUSE_TOKEN, or start Tallyhouse once so that ${folder}/operator-key exists`,
    );
  }
  let answer: Response;
  try {
    answer = await fetch(new URL(request.path, base), {
      method: request.method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new ApiError(`no answer from ${base}: is Tallyhouse running there? (npm start, or set TALLYHOUSE_URL)`, {
      cause: error,
    });
  }
  const text = await answer.text();
  if (!answer.ok) throw new ApiError(problemText(answer.status, text));
  return parseJson(text) as Answer;
}

/** One readable text of a problem document, its list of problems included. */
function problemText(status: number, text: string): string {
  try {
    const problem = JSON.parse(text) as {
      code?: string;
      detail?: string;
      title?: string;
      problems?: { line?: number; field?: string; rule?: string }[];
    };
    const lines = (problem.problems ?? []).map(
      ({ line, field, rule }) => `  ${line === undefined ? "" : `line ${line}: `}${field ?? ""}: ${rule ?? ""}`,
    );
    return [`${problem.code ?? status}: ${problem.detail ?? problem.title ?? ""}`, ...lines].join("\n");
  } catch {
    return `${status}: ${text.slice(0, 500)}`;
  }
}
