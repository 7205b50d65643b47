import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

/** Pinned with pom.xml beside this file; the version is part of the cache folder's name. */
const KAFKA_VERSION = "4.3.1";
const POM_PATH = join(import.meta.dirname, "pom.xml");
const DOWNLOAD_TIMEOUT_MS = 300_000;
const COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

const run = promisify(execFile);

/**
 * The folder with the broker's jars, fetched from Maven once per machine. Safe to repeat and to run twice at once: the jars
 * are copied into a folder of their own and renamed, so a cut download is never used.
 * @throws {Error} when Maven or Java is missing, saying what to install.
 */
export async function kafkaJars(cacheFolder = join(homedir(), ".cache", "tallyhouse")): Promise<string> {
  await requireCommand("java", "-version");
  const folder = join(cacheFolder, `kafka-${KAFKA_VERSION}`);
  if (await exists(folder)) return folder;
  await requireCommand("mvn", "-v");
  await mkdir(dirname(folder), { recursive: true });
  const fresh = await mkdtemp(`${folder}.part-`);
  try {
    const args = ["-q", "-B", "-f", POM_PATH, COPY_GOAL, `-DoutputDirectory=${fresh}`];
    await run("mvn", args, { timeout: DOWNLOAD_TIMEOUT_MS });
    await rename(fresh, folder);
  } catch (cause) {
    await rm(fresh, { recursive: true, force: true });
    // Another process was faster: renaming onto a folder with files is refused.
    if (await exists(folder)) return folder;
    throw new Error(`Maven could not fetch Apache Kafka ${KAFKA_VERSION} into ${folder}`, { cause });
  }
  return folder;
}

async function requireCommand(command: string, versionFlag: string): Promise<void> {
  try {
    await run(command, [versionFlag]);
  } catch (cause) {
    const wanted = "a local Kafka needs Java 17 or newer (java) and, the first time, Maven 3 (mvn)";
    throw new Error(`the command ${command} does not run: ${wanted}`, { cause });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
