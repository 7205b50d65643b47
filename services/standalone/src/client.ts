/** The command line as a client of a running Tallyhouse. */
import { readOperatorKey } from "./data-folder.ts";
import { parseJson } from "@tallyhouse/domain";
import type { Environment } from "@tallyhouse/runtime";

/** An answer that is no success, told as the API told it. */
export class ApiError extends Error {
  override readonly name = "ApiError";
}

const TIMEOUT_MS = 30_000;
/** Between two lines of a streamed answer. */
const LINE_TIMEOUT_MS = 120_000;
/** One line of a streamed answer. */
const LINE_LENGTH_MAX = 1_048_576;

/** `TALLYHOUSE_TOKEN`, or the operator's token of the data folder; null when there is neither. */
export function tokenOf(env: Environment): string | null {
  return env["TALLYHOUSE_TOKEN"] ?? readOperatorKey(env["TALLYHOUSE_DATA"] ?? ".tallyhouse");
}

/** Sends JSON to the gateway of `TALLYHOUSE_URL` (default: the local standalone) with `TALLYHOUSE_TOKEN` (default: operator-key). */
export async function callApi<Answer>(
  env: Environment,
  request: { method: "GET" | "PATCH" | "POST"; path: string; body?: unknown },
): Promise<Answer> {
  const answer = await send(env, { ...request, signal: AbortSignal.timeout(TIMEOUT_MS) });
  const text = await answer.text();
  if (!answer.ok) throw new ApiError(problemText(answer.status, text));
  return parseJson(text) as Answer;
}

/**
 * Sends JSON and yields the lines of an NDJSON answer as they arrive.
 * @throws {ApiError} also when no line came for two minutes.
 */
export async function* streamApi<Line>(
  env: Environment,
  request: { path: string; body: unknown },
): AsyncGenerator<Line> {
  const stop = new AbortController();
  const late = (): void => stop.abort();
  let timer = setTimeout(late, LINE_TIMEOUT_MS);
  try {
    const answer = await send(env, { ...request, method: "POST", signal: stop.signal });
    if (!answer.ok) throw new ApiError(problemText(answer.status, await answer.text()));
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of answer.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(late, LINE_TIMEOUT_MS);
      const lines = (rest + decoder.decode(chunk as Uint8Array, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > LINE_LENGTH_MAX) throw new ApiError("the answer has a line without end");
      for (const line of lines) yield JSON.parse(line) as Line;
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError("the answer was cut off; try again", { cause: error });
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** An answer that is no JSON, such as CSV. */
export async function readTextApi(env: Environment, path: string): Promise<{ text: string; headers: Headers }> {
  const answer = await send(env, { method: "GET", path, signal: AbortSignal.timeout(TIMEOUT_MS) });
  const text = await answer.text();
  if (!answer.ok) throw new ApiError(problemText(answer.status, text));
  return { text, headers: answer.headers };
}

/**
 * The bytes of an answer of any length, as they arrive.
 * @throws {ApiError} also when nothing came for two minutes.
 */
export async function* downloadApi(env: Environment, path: string): AsyncGenerator<Uint8Array> {
  const stop = new AbortController();
  const late = (): void => stop.abort();
  let timer = setTimeout(late, LINE_TIMEOUT_MS);
  try {
    const answer = await send(env, { method: "GET", path, signal: stop.signal });
    if (!answer.ok) throw new ApiError(problemText(answer.status, await answer.text()));
    for await (const chunk of answer.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(late, LINE_TIMEOUT_MS);
      yield chunk as Uint8Array;
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError("the answer was cut off; try again", { cause: error });
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** @throws {ApiError} without a token, or when nobody answers. */
async function send(
  env: Environment,
  request: { method: "GET" | "PATCH" | "POST"; path: string; body?: unknown; signal: AbortSignal },
): Promise<Response> {
  const base = env["TALLYHOUSE_URL"] ?? `http://127.0.0.1:${env["TALLYHOUSE_PORT"] ?? "8080"}`;
  const folder = env["TALLYHOUSE_DATA"] ?? ".tallyhouse";
  const token = tokenOf(env);
  if (token === null) {
    throw new ApiError(
      `no token: set TALLYHOUSE_TOKEN, or start Tallyhouse once so that ${folder}/operator-key exists`,
    );
  }
  try {
    return await fetch(new URL(request.path, base), {
      method: request.method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      signal: request.signal,
    });
  } catch (error) {
    throw new ApiError(`no answer from ${base}: is Tallyhouse running there? (npm start, or set TALLYHOUSE_URL)`, {
      cause: error,
    });
  }
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
