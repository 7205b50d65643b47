import { type ErrorCode, TallyhouseError } from "@tallyhouse/domain";

/** Stops the partition, fails readiness and pages: never skips. The message is the first line of a runbook. */
export function halt(code: ErrorCode, message: string): TallyhouseError {
  return new TallyhouseError({ code, action: "halt", message });
}
