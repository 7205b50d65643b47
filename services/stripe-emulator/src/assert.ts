/** Thrown when the emulator contradicts itself. Always a bug of ours; the process must not go on from it. */
class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/**
 * States what must hold here.
 * @throws {InvariantError} with `message`, when it does not.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
