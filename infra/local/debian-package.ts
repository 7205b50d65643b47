import { execFile } from "node:child_process";
import { promisify } from "node:util";

const INSTALL_TIMEOUT_MS = 300_000;

const run = promisify(execFile);

/**
 * Installs a Debian package when this process may: it must be root and find `apt-get`.
 * @throws {Error} saying what to install by hand.
 */
export async function installDebianPackage(name: string): Promise<void> {
  const command = `apt-get install -y --no-install-recommends ${name}`;
  if (process.getuid?.() !== 0) throw new Error(`${name} is not installed: run \`${command}\` as root`);
  const options = { timeout: INSTALL_TIMEOUT_MS, env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } };
  try {
    await run("apt-get", ["update"], options);
    await run("apt-get", ["install", "-y", "--no-install-recommends", name], options);
  } catch (cause) {
    throw new Error(`${name} is not installed and could not be: \`${command}\` failed`, { cause });
  }
}
