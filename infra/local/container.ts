/**
 * The same servers from their official images, where a container engine runs. The engine's own command is enough: a container is
 * started in the foreground, so that its end is our child's end, and keeps its port and its data over kills and restarts.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import process from "node:process";
import { promisify } from "node:util";
import type { ServerRecipe } from "./local-server.ts";

const run = promisify(execFile);

/** What docker-compose.yml uses too; a test compares them. */
export const IMAGES = {
  kafka: "apache/kafka:4.3.1",
  clickhouse: "clickhouse/clickhouse-server:26.7",
  postgres: "postgres:18",
  redis: "redis:8",
} as const;

/** A server's container. */
export interface ContainerOptions {
  readonly image: string;
  /** On 127.0.0.1. */
  readonly port: number;
  /** Where the server listens inside. */
  readonly insidePort: number;
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * The one switch: LOCAL_SERVERS=containers or processes; without it containers where `docker info` succeeds.
 * @throws {Error} when it says something else.
 */
export async function usesContainers(wanted = process.env["LOCAL_SERVERS"] ?? ""): Promise<boolean> {
  if (wanted === "processes") return false;
  if (wanted === "containers") return true;
  if (wanted !== "") throw new Error(`LOCAL_SERVERS is containers or processes, not ${wanted}`);
  return run("docker", ["info"]).then(
    () => true,
    () => false,
  );
}

/** How a container is started. Fetches the image when it is missing, so that the start itself is quick. */
export async function containerRecipe(
  options: ContainerOptions,
): Promise<Pick<ServerRecipe, "command" | "args"> & { readonly container: string }> {
  const { image, port, insidePort, environment } = options;
  await run("docker", ["image", "inspect", image]).catch(() => run("docker", ["pull", "--quiet", image]));
  const container = `tallyhouse-${randomBytes(6).toString("hex")}`;
  const variables = Object.entries(environment).flatMap(([name, value]) => ["--env", `${name}=${value}`]);
  const publish = ["--publish", `127.0.0.1:${port}:${insidePort}`];
  return { command: "docker", args: ["run", "--name", container, ...publish, ...variables, image], container };
}
