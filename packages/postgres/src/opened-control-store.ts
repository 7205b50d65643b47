import type { ControlStore } from "@tallyhouse/domain";

/** An open control store. */
export interface OpenedControlStore {
  readonly store: ControlStore;
  /** As the server says it, for example `18.6`. */
  readonly serverVersion: string;
  /** Where it runs, for people: `in the process`, or `at user@host:port/database`. Never the password. */
  readonly place: string;
  /** Waits for the statements in flight, then lets the folder or the connections go. The store is unusable afterwards. */
  close(): Promise<void>;
}
