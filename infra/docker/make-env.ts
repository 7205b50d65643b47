/** `npm run compose:env`: writes random secrets for docker-compose.yml into .env. What stands there already is kept. */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const path = join(import.meta.dirname, "..", "..", ".env");
const kept = existsSync(path) ? readFileSync(path, "utf8") : "";
const secrets: Readonly<Record<string, string>> = {
  STREAM_HASH_SEED: randomBytes(16).toString("hex"),
  TOKEN_PEPPER: randomBytes(32).toString("hex"),
  CONTROL_SIGNING_KEY: randomBytes(32).toString("hex"),
  TALLYHOUSE_INGEST_KEY: `svc_live_th_${randomBytes(32).toString("hex")}`,
  CLICKHOUSE_PASSWORD: randomBytes(16).toString("hex"),
  POSTGRES_PASSWORD: randomBytes(16).toString("hex"),
};
const missing = Object.entries(secrets).filter(([name]) => !new RegExp(`^${name}=`, "m").test(kept));
const lines = missing.map(([name, value]) => `${name}=${value}\n`).join("");
const separator = kept === "" || kept.endsWith("\n") ? "" : "\n";
writeFileSync(path, `${kept}${separator}${lines}`, { mode: 0o600 });
process.stdout.write(
  missing.length === 0 ? ".env has every secret.\n" : `.env: ${missing.map(([name]) => name).join(", ")}\n`,
);
