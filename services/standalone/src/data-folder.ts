/** What the data folder holds beside the stores: secrets, the operator's token, and what may never change. */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { assert, type ControlKey, controlKeyOf, type StreamPredecessor, TallyhouseError } from "@tallyhouse/domain";
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

/** What is fixed for the life of a stream: its results are a function of it. */
export interface FolderStream {
  readonly streamId: number;
  /** The streams of this folder before it: the secrets, and with them the hash seed, are theirs, too. */
  readonly predecessors: readonly StreamPredecessor[];
  /** `embedded`, or `kafka` and the topic. */
  readonly log: string;
  /** `embedded` or `server`: the log may have forgotten what only the other store has. */
  readonly analytics: string;
  readonly partitionCount: number;
  readonly bookingWindowSeconds: number;
}

const StreamSchema = z.strictObject({
  log: z.string(),
  /** Folders of the first version had no choice. */
  analytics: z.string().default("embedded"),
  partitionCount: z.int(),
  bookingWindowSeconds: z.int(),
});

/**
 * Remembers the stream on its first start and holds every later start to it. Each stream has its own file, so that a start of the
 * next one that came too early leaves the way back open.
 * @throws {TallyhouseError} STREAM_MISMATCH when a setting differs: offsets of one stream mean nothing in another. CONFIG_INVALID when
 * the folder's first stream is not named as a predecessor: all it counted could count again.
 */
export function pinStream(folder: string, { streamId, predecessors, ...wanted }: FolderStream): void {
  const first = readPin(folder, FIRST_STREAM_ID);
  if (first !== null && streamId !== FIRST_STREAM_ID) {
    const named = predecessors.find((before) => before.streamId === FIRST_STREAM_ID);
    if (named?.partitionCount !== first.partitionCount) {
      const needed = `${FIRST_STREAM_ID}:${first.partitionCount}`;
      throw new TallyhouseError({
        code: "CONFIG_INVALID",
        action: "halt",
        message: `${folder} holds stream ${needed}: STREAM_ID ${streamId} needs it in STREAM_PREDECESSORS, or what it counted counts again`,
      });
    }
  }
  if (readPin(folder, streamId) === null) writeDurably(pinPath(folder, streamId), JSON.stringify(wanted));
  const pinned = readPin(folder, streamId);
  assert(pinned !== null, "a pin that was written is there");
  for (const name of ["log", "analytics", "partitionCount", "bookingWindowSeconds"] as const) {
    if (pinned[name] === wanted[name]) continue;
    throw new TallyhouseError({
      code: "STREAM_MISMATCH",
      action: "halt",
      message:
        `${folder} was begun with ${name} = ${pinned[name]}, and this start asks for ${wanted[name]}: use the old setting, begin a new stream ` +
        "(STREAM_ID, STREAM_PREDECESSORS), or use another folder (TALLYHOUSE_DATA)",
    });
  }
}

const FIRST_STREAM_ID = 1;

function pinPath(folder: string, streamId: number): string {
  return join(folder, streamId === FIRST_STREAM_ID ? "stream.json" : `stream-${streamId}.json`);
}

function readPin(folder: string, streamId: number): z.infer<typeof StreamSchema> | null {
  const path = pinPath(folder, streamId);
  return existsSync(path) ? StreamSchema.parse(JSON.parse(readFileSync(path, "utf8"))) : null;
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
