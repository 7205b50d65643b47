/** Our own bug: a state that the code excludes. Gateways answer 500 and alert; consumers exit and restart. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/**
 * States what must hold here.
 * @throws {InvariantError} when it does not; nothing is repaired, the process is expected to end.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** The default branch of an exhaustive switch: a new union member does not compile until it is decided. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable: ${JSON.stringify(value)}`);
}
