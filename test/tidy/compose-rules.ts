/** docker-compose.yml against the configuration schemas, where no engine is needed to see a mistake. */
import { parse } from "yaml";
import { variableNamesOf } from "./register-rules.ts";
import type { Tree } from "./tree.ts";

const COMPOSE = "docker-compose.yml";

interface ComposeService {
  readonly image?: string;
  readonly profiles?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition?: string }>>;
  readonly healthcheck?: { readonly test?: readonly string[] };
}

interface ComposeFile {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly volumes?: Readonly<Record<string, unknown>>;
}

/** Every variable of ours exists in a schema; files, ports, volumes and dependencies agree with each other. */
export function composeProblems(tree: Tree): string[] {
  const text = tree.get(COMPOSE);
  if (text === undefined) return [];
  const { services, volumes = {} } = parse(text, { merge: true }) as ComposeFile;
  const known = variableNamesOf(tree);
  return Object.entries(services).flatMap(([name, service]) => {
    const isOurs = service.image === "tallyhouse";
    return [
      ...(isOurs ? oursProblems(tree, service, known) : []),
      ...dependencyProblems(services, service),
      ...(service.volumes ?? [])
        .map((volume) => volume.split(":")[0] ?? "")
        .filter((volume) => !(volume in volumes))
        .map((volume) => `mounts ${volume}, which is no volume of the file`),
    ].map((problem) => `${COMPOSE}: ${name} ${problem}`);
  });
}

function oursProblems(tree: Tree, service: ComposeService, known: ReadonlySet<string>): string[] {
  const { environment = {}, command = [], healthcheck, ports = [] } = service;
  const [, entry = ""] = command;
  const listening = [
    ...Object.entries(environment)
      .filter(([name]) => name.endsWith("_PORT"))
      .map(([, value]) => value),
    ...command.filter((_word, index) => command[index - 1] === "--port"),
  ];
  const asked = [...(healthcheck?.test ?? []).join(" ").matchAll(/127\.0\.0\.1:(\d+)/g)].map((match) => match[1] ?? "");
  const published = ports.map((port) => port.split(":").at(-1) ?? "");
  return [
    ...Object.keys(environment)
      .filter((name) => !known.has(name))
      .map((name) => `sets ${name}, which no schema reads`),
    ...(tree.has(entry) ? [] : [`runs ${entry}, which does not exist`]),
    ...[...asked, ...published]
      .filter((port) => !listening.includes(port))
      .map((port) => `names port ${port}, where it does not listen`),
    ...(listening.length > 0 && healthcheck === undefined ? ["has no health check"] : []),
  ];
}

function dependencyProblems(services: ComposeFile["services"], service: ComposeService): string[] {
  return Object.entries(service.depends_on ?? {}).flatMap(([name, { condition }]) => {
    const other = services[name];
    if (other === undefined) return [`waits for ${name}, which does not exist`];
    const isHealthless = condition === "service_healthy" && other.healthcheck === undefined;
    return isHealthless ? [`waits for the health of ${name}, which has no check`] : [];
  });
}
