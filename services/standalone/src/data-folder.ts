/** What the data folder holds beside the stores: secrets, the operator's token, and what may never change. */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { assert, type ControlKey, controlKeyOf, TallyhouseError } from "@tallyhouse/domain";
import { z } from "zod";

/** Secrets of one folder. Lost, identities cannot be recognised again and tokens no longer verify: back the file up. */
export interface FolderSecrets {
  /** 16 bytes; keys every identity hash of the stream. */
  readonly hashSeed: Buffer;
  /** 32 bytes; keys the hashes of service tokens, kept outside the database on purpose. */
  readonly tokenPepper: Buffer;
  /** The first one signs control records; the others verify what they signed before, for ever. */
  readonly controlKeys: readonly [ControlKey, ...ControlKey[]];
  /** Seed of the emulator's ids. */
  readonly emulatorSeed: string;
}

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));
const SecretsSchema = z.strictObject({
  hashSeed: hex(16),
  tokenPepper: hex(32),
  /** Hex; the newest last, for ever kept. */
  controlKeys: z.array(z.string().regex(/^([0-9a-f]{2}){32,}$/)).min(1),
  emulatorSeed: z.string(),
});

/**
 * Reads the folder's secrets, making them on the first start. A signing key given by the operator is kept beside the earlier
 * ones and signs from now on. Safe to repeat: what exists is never replaced.
 */
export function openSecrets(folder: string, signingKey: string | undefined): FolderSecrets {
  const path = join(folder, "secrets.json");
  const kept = existsSync(path) ? SecretsSchema.parse(JSON.parse(readFileSync(path, "utf8"))) : null;
  const given = signingKey === undefined ? undefined : Buffer.from(signingKey, "utf8").toString("hex");
  const base = kept ?? {
    hashSeed: randomBytes(16).toString("hex"),
    tokenPepper: randomBytes(32).toString("hex"),
    controlKeys: [],
    emulatorSeed: randomBytes(8).toString("hex"),
  };
  const newest = given ?? base.controlKeys.at(-1) ?? randomBytes(32).toString("hex");
  const secrets = { ...base, controlKeys: [...base.controlKeys.filter((key) => key !== newest), newest] };
  if (kept?.controlKeys.at(-1) !== newest) writeDurably(path, JSON.stringify(secrets));
  const [signing, ...older] = secrets.controlKeys.map((key) => controlKeyOf(Buffer.from(key, "hex"))).reverse();
  assert(signing !== undefined, "there is always a signing key");
  return {
    hashSeed: Buffer.from(secrets.hashSeed, "hex"),
    tokenPepper: Buffer.from(secrets.tokenPepper, "hex"),
    controlKeys: [signing, ...older],
    emulatorSeed: secrets.emulatorSeed,
  };
}

/** What is fixed for the life of a folder: its results are a function of one stream. */
export interface FolderStream {
  /** `embedded`, or `kafka` and the topic. */
  readonly log: string;
  readonly partitionCount: number;
  readonly bookingWindowSeconds: number;
}

const StreamSchema = z.strictObject({ log: z.string(), partitionCount: z.int(), bookingWindowSeconds: z.int() });

/**
 * Remembers the stream on the first start and holds every later start to it.
 * @throws {TallyhouseError} STREAM_MISMATCH when a setting differs: offsets of one stream mean nothing in another.
 */
export function pinStream(folder: string, wanted: FolderStream): void {
  const path = join(folder, "stream.json");
  if (!existsSync(path)) writeDurably(path, JSON.stringify(wanted));
  const pinned = StreamSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  for (const name of ["log", "partitionCount", "bookingWindowSeconds"] as const) {
    if (pinned[name] === wanted[name]) continue;
    throw new TallyhouseError({
      code: "STREAM_MISMATCH",
      action: "halt",
      message: `${folder} was begun with ${name} = ${pinned[name]}, and this start asks for ${wanted[name]}: use the old setting or another folder (TALLYHOUSE_DATA)`,
    });
  }
}

/** The operator's token as kept on disk; null before the first start. */
export function readOperatorKey(folder: string): string | null {
  const path = join(folder, "operator-key");
  return existsSync(path) ? readFileSync(path, "utf8").trim() : null;
}

/** Keeps the operator's token, readable by its owner alone. */
export function writeOperatorKey(folder: string, token: string): void {
  writeDurably(join(folder, "operator-key"), `${token}\n`);
}

/** Whether the first start ran to its end (token stored, meters applied). Until then each start repeats it. */
export function isBegun(folder: string): boolean {
  return existsSync(join(folder, "begun"));
}

/** Marks the first start as done. Comes last: a kill before it repeats steps that are all safe to repeat. */
export function markBegun(folder: string): void {
  writeDurably(join(folder, "begun"), "");
}

/** Temporary file, fsync, rename, fsync of the folder: after a power failure the file is whole or absent. Mode 600. */
function writeDurably(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.new`;
  const file = openSync(temporary, "w", 0o600);
  writeSync(file, content);
  fsyncSync(file);
  closeSync(file);
  renameSync(temporary, path);
  const directory = openSync(dirname(path), "r");
  fsyncSync(directory);
  closeSync(directory);
}
