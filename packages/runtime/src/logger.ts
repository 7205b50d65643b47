import { pino } from "pino";

/** Structured log lines. Never pass secrets or customer data: ids, counts and codes only. */
export interface Logger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: Record<string, unknown>): Logger;
}

/** The least important line that is still written. */
export type LogLevel = "error" | "info" | "silent" | "warn";

/** A logger to standard error, JSON lines: standard output belongs to what a command answers. */
export function createLogger(input: { level: LogLevel; name: string }): Logger {
  return pino(
    {
      level: input.level,
      name: input.name,
      redact: ["authorization", "token", "secret", "*.authorization", "*.token", "*.secret"],
    },
    pino.destination({ dest: 2, sync: true }),
  );
}
