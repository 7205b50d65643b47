/** Wakes whoever waits now. A condition is looked at before and after: a notification without a waiter is forgotten. */
export class Wakeup {
  #next = Promise.withResolvers<void>();

  wait(): Promise<void> {
    return this.#next.promise;
  }

  notify(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers<void>();
  }
}
