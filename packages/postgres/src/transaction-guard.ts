import { AsyncLocalStorage } from "node:async_hooks";
import { assert } from "@tallyhouse/domain";

/**
 * Tells whether code runs inside a transaction of one store.
 *
 * A statement of the store itself would there wait for the transaction that waits for it (PGlite), or run outside of it on
 * another connection and, when the pool is used up, wait for ever (a server). So both adapters refuse it at once.
 */
export class TransactionGuard {
  readonly #running = new AsyncLocalStorage<{ isOpen: boolean }>();

  /** @throws {InvariantError} inside a transaction of this store. */
  assertOutside(): void {
    assert(this.#running.getStore()?.isOpen !== true, "inside a transaction only its own `tx` may be used");
  }

  /** Runs the body of a transaction. Its scope closes when it settles: work that it left behind is outside again. */
  async run<Result>(body: (scope: { readonly isOpen: boolean }) => Promise<Result>): Promise<Result> {
    const scope = { isOpen: true };
    try {
      return await this.#running.run(scope, async () => body(scope));
    } finally {
      scope.isOpen = false;
    }
  }
}
