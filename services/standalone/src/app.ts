/** All services in one process. The only place that composes them; each is built through its own `build…` function. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { buildConsole, ConsoleConfigSchema } from "@tallyhouse/console";
import { modeOfServiceToken, type Mode, type StreamIdentity, TallyhouseError } from "@tallyhouse/domain";
import { buildGateway, GatewayConfigSchema } from "@tallyhouse/gateway";
import { buildReporter, buildStatements, ReporterConfigSchema } from "@tallyhouse/reporter";
import {
  aborted,
  type Component,
  createLogger,
  createMetrics,
  type Environment,
  heldOpen,
  listening,
  type Logger,
  parseConfig,
  randomShare,
  type Readiness,
  runComponents,
  streamOf,
} from "@tallyhouse/runtime";
import { startStripeEmulator, type StripeEmulator } from "@tallyhouse/stripe-emulator";
import { buildAnalystsEndpoint } from "./analysts/endpoint.ts";
import { type StandaloneConfig, StandaloneConfigSchema } from "./config.ts";
import { isBegun, markBegun, readOperatorKey, writeOperatorKey } from "./data-folder.ts";
import { generateServiceToken, openPorts, type StandalonePorts } from "./ports.ts";

export { auditPorts } from "./audit.ts";
export { readOperatorKey } from "./data-folder.ts";

/**
 * Opens the stores of a folder that no process runs on, migrations applied: for `tallyhouse migrate` and for tests that read
 * after a kill.
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE when a process runs on it.
 */
export function openStoppedFolder(env: Environment): Promise<StandalonePorts> {
  const config = parseConfig(StandaloneConfigSchema, env);
  return openPorts(config, createLogger({ level: config.LOG_LEVEL, name: "tallyhouse" }));
}

/** A running standalone. */
export interface Standalone {
  /** Base URL of the gateway: the only one callers need. */
  readonly url: string;
  readonly emulator: StripeEmulator;
  /** Base URL of the analysts' endpoint; absent when TALLYHOUSE_SQL_PORT is `off`. */
  readonly sqlUrl: string | undefined;
  readonly mode: Mode;
  readonly token: string;
  /** Whether this start made the token: it is printed once. */
  readonly isFirstStart: boolean;
  /** What the services run on; for demos and tests in the same process. */
  readonly ports: StandalonePorts;
  /** Settles when everything has stopped: 0 after `stop`, 1 after a failure. */
  readonly done: Promise<0 | 1>;
  /** Stops gracefully: what was answered 202 is in the log; nothing else matters. Safe to repeat. */
  stop(): Promise<0 | 1>;
}

const HOST = "127.0.0.1";
const SAMPLE_METERS = new URL("../../../examples/meters.yaml", import.meta.url);
/** Keys of the emulator: any text with the right prefix is accepted there, and nowhere else. */
const EMULATOR_KEYS = { live: "sk_live_tallyhouse_standalone", test: "sk_test_tallyhouse_standalone" } as const;

/**
 * Starts everything on one data folder and resolves when the gateway answers.
 * @throws {TallyhouseError} CONFIG_INVALID, DATA_FOLDER_IN_USE, PORT_IN_USE, STREAM_MISMATCH, METERS_INVALID: nothing keeps running.
 */
export async function startStandalone(env: Environment): Promise<Standalone> {
  const config = parseConfig(StandaloneConfigSchema, env);
  const logger = createLogger({ level: config.LOG_LEVEL, name: "tallyhouse" });
  const ports = await openPorts(config, logger);
  const started: (() => Promise<unknown>)[] = [() => ports.close()];
  try {
    const emulatorPlace = { host: HOST, port: config.TALLYHOUSE_EMULATOR_PORT, variable: "TALLYHOUSE_EMULATOR_PORT" };
    const emulator = await listening(emulatorPlace, (place) =>
      startStripeEmulator({
        ...place,
        dataFolder: `${config.TALLYHOUSE_DATA}/stripe-emulator`,
        seed: ports.secrets.emulatorSeed,
        limits: config.EMULATOR_LIMITS,
      }),
    );
    started.push(() => emulator.close());
    const services = await buildServices({ config, env, ports, emulator, logger });
    started.push(() => services.stopListening());
    const gatewayPlace = { host: HOST, port: config.TALLYHOUSE_PORT, variable: "TALLYHOUSE_PORT" };
    const url = await listening(gatewayPlace, (place) => services.gateway.listen(place));
    const analysts = await startAnalysts({ config, ports, logger });
    started.push(() => analysts.close());
    const operator = await ensureOperator(config, ports);
    const stopper = new AbortController();
    const done = runComponents({ components: [...services.components, analysts], signal: stopper.signal, log: logger });
    const stop = (): Promise<0 | 1> => {
      stopper.abort();
      return done;
    };
    try {
      await applyFirstMeters({ config, url, token: operator.token });
    } catch (error) {
      await stop();
      throw error;
    }
    return { url, emulator, sqlUrl: analysts.url, ...operator, ports, done, stop };
  } catch (error) {
    for (const release of started.reverse()) await release();
    throw error;
  }
}

/** The analysts' endpoint, listening, as a part of the process; without an address when it is off. */
async function startAnalysts(input: {
  config: StandaloneConfig;
  ports: StandalonePorts;
  logger: Logger;
}): Promise<Component & { readonly url: string | undefined }> {
  const { config, ports, logger } = input;
  const { TALLYHOUSE_SQL_PORT: port } = config;
  const { readOnlySql: sql, tokens: authenticator } = ports;
  const name = "analysts";
  if (port === "off" || sql === undefined)
    return { name, url: undefined, run: aborted, close: () => Promise.resolve() };
  const endpoint = buildAnalystsEndpoint({ sql, authenticator, logger });
  const place = { host: HOST, port, variable: "TALLYHOUSE_SQL_PORT" };
  const url = await listening(place, (free) => endpoint.listen(free));
  return { name, url, run: aborted, close: () => endpoint.close() };
}

async function buildServices(input: {
  config: StandaloneConfig;
  env: Environment;
  ports: StandalonePorts;
  emulator: StripeEmulator;
  logger: Logger;
}) {
  const { config, env, ports, emulator, logger } = input;
  const { log, analytics, control, clock, tokens: authenticator, secrets } = ports;
  const metrics = createMetrics();
  const shared = { log, analytics, control, authenticator, clock, random: randomShare, logger, metrics };
  const stream: StreamIdentity = { ...streamOf(config), hashSeed: secrets.hashSeed };
  const { controlKeys } = secrets;
  const [signingKey] = controlKeys;
  const console = await buildConsole(
    { ...parseConfig(ConsoleConfigSchema, env), stream, controlKey: signingKey },
    shared,
  );
  const consoleUrl = await console.app.listen({ host: HOST, port: 0 });
  const aggregator = buildAggregator({ ...parseConfig(AggregatorConfigSchema, env), stream, controlKeys }, shared);
  const reporterConfig = {
    ...parseConfig(ReporterConfigSchema, {
      ...env,
      STRIPE_LIVE_SECRET_KEY: EMULATOR_KEYS.live,
      STRIPE_TEST_SECRET_KEY: EMULATOR_KEYS.test,
      STRIPE_API_URL: emulator.url,
      REPORT_AUTO_MAP: "true",
      REPORT_INTERVAL_MS: String(config.REPORT_INTERVAL_MS),
    }),
    stream,
  };
  const reporter = buildReporter(reporterConfig, shared);
  ports.storedOffsets.of = (partition) =>
    aggregator.status().partitions.find((each) => each.partition === partition)?.storedOffset ?? 0;
  const gateway = await buildGateway(parseConfig(GatewayConfigSchema, { ...env, CONSOLE_URL: consoleUrl }), {
    ...shared,
    readiness: () => Promise.resolve(readinessOf({ aggregator: aggregator.status(), reporter: reporter.status() })),
  });
  // Closed in reverse: the doors first, the stores last.
  const components: Component[] = [
    heldOpen("stores and event log", { failed: ports.logFailed, close: () => ports.close() }),
    heldOpen("stripe emulator", emulator),
    aggregator,
    reporter,
    buildStatements(reporterConfig, shared),
    console.outbox,
    console.sweeper,
    console.audits,
    heldOpen("console", console.app),
    heldOpen("gateway", gateway),
  ];
  const stopListening = async (): Promise<void> => {
    await gateway.close();
    await console.app.close();
  };
  return { gateway, components, stopListening };
}

/** Ready is what makes progress: a stuck part is not healthy, however alive its process. */
function readinessOf(parts: Readonly<Record<string, { readonly isReady: boolean }>>): Readiness {
  const states = Object.entries(parts).map(([part, { isReady }]) => [part, isReady ? "ok" : "behind"] as const);
  return { isReady: states.every(([, state]) => state === "ok"), parts: Object.fromEntries(states) };
}

/** Makes or takes the operator's token. The store first, the file last: a kill between repeats a harmless insert. */
async function ensureOperator(
  config: StandaloneConfig,
  ports: StandalonePorts,
): Promise<{ token: string; mode: Mode; isFirstStart: boolean }> {
  const folder = config.TALLYHOUSE_DATA;
  const kept = readOperatorKey(folder);
  const token = config.TALLYHOUSE_INGEST_KEY ?? kept ?? generateServiceToken("live", randomBytes);
  const mode = modeOfServiceToken(token);
  if (mode === null) {
    throw new TallyhouseError({
      code: "CONFIG_INVALID",
      action: "halt",
      message: `${folder}/operator-key holds no service token: restore it or remove the file`,
    });
  }
  await ports.tokens.add(token);
  if (token !== kept) writeOperatorKey(folder, token);
  return { token, mode, isFirstStart: kept === null };
}

/** Applies the sample (or named) meters file through the public API on the first start. Safe to repeat: equal versions change nothing. */
async function applyFirstMeters(input: { config: StandaloneConfig; url: string; token: string }): Promise<void> {
  const { config, url, token } = input;
  if (isBegun(config.TALLYHOUSE_DATA)) return;
  if (config.TALLYHOUSE_METERS !== "none") {
    const file = readFileSync(config.TALLYHOUSE_METERS ?? SAMPLE_METERS, "utf8");
    const answer = await fetch(`${url}/admin/v1/meters/apply?wait=10s`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ file }),
    });
    if (!answer.ok) {
      const message = `the first meters file was refused: ${await answer.text()}`;
      throw new TallyhouseError({ code: "METERS_INVALID", action: "halt", message });
    }
  }
  markBegun(config.TALLYHOUSE_DATA);
}
