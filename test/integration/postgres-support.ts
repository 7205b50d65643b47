import { randomUUID } from "node:crypto";
import { openPostgres } from "@tallyhouse/postgres";

/** Fails, never skips: a suite that did not run is not a suite that passed. */
export function postgresUrl(): string {
  const url = process.env["POSTGRES_URL"];
  if (url === undefined || url === "") {
    throw new Error("POSTGRES_URL is not set: run this through infra/local/run-with.ts --postgres");
  }
  return url;
}

/** An empty database that no other test uses, on the server of `serverUrl`. */
export async function freshDatabase(serverUrl: string): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `test_${randomUUID().replaceAll("-", "")}`;
  await runOnce(serverUrl, `CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => runOnce(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`) };
}

async function runOnce(url: string, statement: string): Promise<void> {
  const opened = await openPostgres({ url, poolMax: 1 });
  try {
    await opened.store.query(statement);
  } finally {
    await opened.close();
  }
}
