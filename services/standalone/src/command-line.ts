/** The one command line, `tallyhouse`. The only file here that touches the process. */
import { parseArgs } from "node:util";
import { TallyhouseError } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { audit } from "./audit-command.ts";
import { openStoppedFolder, type Standalone, startStandalone } from "./app.ts";
import { ApiError, callApi } from "./client.ts";
import { CUSTOMERS_USAGE, runCustomers } from "./customers-command.ts";
import { generateDay } from "./demo/generate.ts";
import { runDemo } from "./demo/run.ts";
import { readTrace, TRACE_FORMATS, type TraceFormat } from "./demo/traces.ts";
import { EVENTS_USAGE, runEvents } from "./events-command.ts";
import { runMeters, UsageError } from "./meters-command.ts";
import { runSimulate, SIMULATE_USAGE } from "./simulate-command.ts";
import { PLANS_USAGE, runPlans } from "./plans-command.ts";
import { addToken, migrateServers, prepareTopic } from "./prepare.ts";

const USAGE = `tallyhouse: usage in, exact bills out

  tallyhouse start                    everything in one process on one folder
  tallyhouse demo                     a day of usage through every stage, compared to the last digit
      [--seed N] [--events N]
      [--trace FILE --format azure-llm|apache-combined --expected FILE]
  tallyhouse migrate                  bring the stores up to date: the servers of POSTGRES_URL and CLICKHOUSE_URL, or, when
                                      neither is set, those of a stopped data folder
  tallyhouse topic                    make the topic KAFKA_TOPIC on KAFKA_BROKERS, or check the one that is there
  tallyhouse token add                make the service token TALLYHOUSE_INGEST_KEY valid in POSTGRES_URL
  tallyhouse meters check FILE        check a meters file, offline
      [--against FROM..TO]            and count what its rules would have counted over past usage
  tallyhouse meters diff FILE         what apply would change
  tallyhouse meters apply FILE        make new meter versions active; a changed one ends its predecessor
  tallyhouse meters end KEY           end a meter without a successor
      [--until T]                     default: as early as possible
${PLANS_USAGE}
${EVENTS_USAGE}
${SIMULATE_USAGE}
${CUSTOMERS_USAGE}
  tallyhouse stream close NUMBER      end the stream of the event log, before one of more partitions
  tallyhouse audit                    recount what is stored, in SQL alone; prints the rows that differ and exits 1,
      [--check A4] [--json]           or 2 when it could not run

These, but for check (of meters without --against), talk to TALLYHOUSE_URL (default http://127.0.0.1:8080) with TALLYHOUSE_TOKEN (default: the token in
TALLYHOUSE_DATA/operator-key, .tallyhouse by default).
`;

/** A close is folded within a second where nothing lags; after a minute somebody should look. */
const CLOSE_ATTEMPTS = 60;
const CLOSE_POLL_MS = 1_000;

/** Runs the command named by the arguments and sets the exit code: 0 done, 1 refused or failed, 2 wrong usage. */
export async function runCommandLine(): Promise<void> {
  try {
    process.exitCode = await runCommand(process.argv.slice(2));
  } catch (error) {
    if (
      error instanceof UsageError ||
      (error instanceof TypeError && String((error as NodeJS.ErrnoException).code).startsWith("ERR_PARSE_ARGS"))
    ) {
      process.stderr.write(`${error.message}\n\n${USAGE}`);
      process.exitCode = 2;
    } else if (error instanceof TallyhouseError || error instanceof ApiError) {
      process.stderr.write(`tallyhouse: ${error.message}\n`);
      process.exitCode = 1;
    } else {
      throw error;
    }
  }
}

async function runCommand(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case "start":
      return start();
    case "demo":
      return demo(rest);
    case "migrate":
      return migrate();
    case "topic":
      return say(await prepareTopic(process.env));
    case "token":
      if (rest.join(" ") !== "add") throw new UsageError("token needs add");
      return say(await addToken(process.env));
    case "meters":
      return runMeters(rest, process.env, {
        out: (text) => process.stdout.write(text),
        err: (text) => process.stderr.write(text),
      });
    case "plans":
      return runPlans(rest, {
        env: process.env,
        output: { out: (text) => process.stdout.write(text), err: (text) => process.stderr.write(text) },
      });
    case "events":
      return runEvents(rest, { env: process.env, write: (text) => process.stdout.write(text) });
    case "simulate":
      return simulate(rest);
    case "customers":
      return runCustomers(rest, { env: process.env, write: (text) => process.stdout.write(text) });
    case "stream":
      return closeStream(rest);
    case "audit":
      return runAuditCommand(rest);
    case undefined:
    case "help":
    case "--help":
      process.stdout.write(USAGE);
      return 0;
    default:
      throw new UsageError(`unknown command: ${command}`);
  }
}

async function start(): Promise<number> {
  const standalone = await startStandalone(process.env);
  const stop = (): void => void standalone.stop();
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  printWelcome(standalone);
  return standalone.done;
}

function printWelcome(standalone: Standalone): void {
  const { url, emulator, sqlUrl, ports, token, isFirstStart } = standalone;
  const folder = process.env["TALLYHOUSE_DATA"] ?? ".tallyhouse";
  const parts = Object.entries(ports.adapters).map(([part, adapter]) => `  ${part.padEnd(10)} → ${adapter}`);
  const lines = [
    "Tallyhouse is ready.",
    ...parts,
    "",
    `  page         ${url}/`,
    `  API          ${url}/v1/events, ${url}/v1/usage`,
    `  Stripe       ${emulator.url}/ (emulator)`,
    ...(sqlUrl === undefined ? [] : [`  SQL          ${sqlUrl}/ (read-only, the token is the password)`]),
    "",
    ...(isFirstStart
      ? [`The operator's token, shown this once and kept in ${folder}/operator-key:`, "", `  ${token}`, ""]
      : []),
    "Try:",
    "",
    `  curl ${url}/v1/events -H "Authorization: Bearer $(cat ${folder}/operator-key)" -H 'Content-Type: application/json' \\`,
    `    -d '{"id":"first-1","customer":"cust-1","type":"llm.request","data":{"inputTokens":374,"outputTokens":44,"model":"small"}}'`,
    `  curl "${url}/v1/usage?customer=cust-1&meter=input_tokens" -H "Authorization: Bearer $(cat ${folder}/operator-key)"`,
    "",
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

async function demo(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seed: { type: "string", default: "1" },
      events: { type: "string", default: "20000" },
      trace: { type: "string" },
      format: { type: "string" },
      expected: { type: "string" },
    },
  });
  const seed = wholeNumber("--seed", values.seed);
  const nowAt = Date.now();
  const workload =
    values.trace === undefined
      ? generateDay({ seed, nowAt, events: wholeNumber("--events", values.events) })
      : readTrace({
          tracePath: values.trace,
          expectedPath: required("--expected", values.expected),
          format: formatOf(values.format),
          nowAt,
        });
  let lastQuarter = -1;
  const isTerminal = process.stdout.isTTY;
  return runDemo({
    workload,
    seed,
    env: process.env,
    output: {
      line: (text) => process.stdout.write(`${isTerminal ? "\r\u001b[K" : ""}${text}\n`),
      progress: (text) => {
        const quarter = Math.floor((/#*/.exec(text.slice(text.indexOf("#")))?.[0].length ?? 0) / 8);
        if (isTerminal) process.stdout.write(`\r\u001b[K${text}`);
        else if (quarter !== lastQuarter) process.stdout.write(`${text}\n`);
        lastQuarter = quarter;
      },
    },
  });
}

/** Opening the ports applies every pending migration; a running process holds the folder's lock and is left alone. */
async function migrate(): Promise<number> {
  const servers = await migrateServers(process.env);
  if (servers.length > 0) return say(servers.join("\n"));
  const ports = await openStoppedFolder(process.env);
  await ports.close();
  return say("The data folder is up to date.");
}

/** An audit that cannot be asked for could not run: 2, as 1 says that rows differ. */
async function runAuditCommand(args: readonly string[]): Promise<number> {
  const print = (text: string): void => void process.stdout.write(text);
  const complain = (text: string): void => void process.stderr.write(text);
  try {
    const io = { env: process.env, print, complain };
    if (!process.stderr.isTTY) return await audit(args, io);
    // Back to the beginning of the line, and what stood there is cleared.
    return await audit(args, { ...io, show: (text) => complain(`\r\x1b[2K${text}`) });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    complain(`tallyhouse: ${error.message}\n`);
    return 2;
  }
}

function simulate(args: readonly string[]): Promise<number> {
  const output = {
    out: (text: string) => void process.stdout.write(text),
    err: (text: string) => void process.stderr.write(text),
  };
  const io = { env: process.env, output };
  if (!process.stderr.isTTY) return runSimulate(args, io);
  return runSimulate(args, { ...io, show: (text) => output.err(`\r\x1b[2K${text}`) });
}

function say(text: string): number {
  process.stdout.write(`${text}\n`);
  return 0;
}

/** Asks until every partition has folded its close, then says what comes next. */
async function closeStream(args: readonly string[]): Promise<number> {
  const [verb, number = "", ...more] = args;
  if (verb !== "close" || !/^\d{1,5}$/.test(number) || more.length > 0)
    throw new UsageError("stream needs close, and the stream's number (STREAM_ID, 1 unless it was set)");
  for (let attempt = 1; ; attempt += 1) {
    const { state, partitions, closedPartitions } = await callApi<Record<string, string | number>>(process.env, {
      method: "POST",
      path: "/admin/v1/stream/close",
      body: { stream: Number(number) },
    });
    if (state === "closed")
      return say(`Stream ${number} is closed. The next one names it: STREAM_PREDECESSORS=${number}:${partitions}`);
    if (attempt === CLOSE_ATTEMPTS) {
      process.stderr.write(
        `closed in ${closedPartitions} of ${partitions} partitions: ask again when the rest is folded\n`,
      );
      return 1;
    }
    await pause(CLOSE_POLL_MS, new AbortController().signal);
  }
}

function wholeNumber(option: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`${option} takes a whole number`);
  return Number(text);
}

function required(option: string, value: string | undefined): string {
  if (value === undefined) throw new UsageError(`${option} is required with --trace`);
  return value;
}

function formatOf(text: string | undefined): TraceFormat {
  const format = TRACE_FORMATS.find((name) => name === text);
  if (format === undefined) throw new UsageError(`--format is one of ${TRACE_FORMATS.join(", ")}`);
  return format;
}
