/** Suites that `npm test` leaves out, because they need more than Node and npm. Each has its own command. */

/** One suite: `npm run test:<name>`. */
export interface Suite {
  readonly name: string;
  /** Folder of the workspace that holds it. */
  readonly workspace: string;
  /** Patterns of its test files, relative to the workspace. */
  readonly include: readonly string[];
  /** What it needs, for the closing lines of `npm test`. */
  readonly needs: string;
}

/** Every such suite. vitest.config.ts takes these files out of every other run. */
export const SUITES: readonly Suite[] = [
  {
    name: "kafka",
    workspace: "packages/eventlog",
    include: ["**/*.kafka.test.ts"],
    needs: "a real Apache Kafka: starts one on this machine (Java 17; Maven, the first time)",
  },
  {
    name: "traces",
    workspace: "test",
    include: ["traces/**/*.test.ts"],
    needs: "the real traces in TRACES_DIR, and a real Apache Kafka",
  },
  {
    name: "kill",
    workspace: "test",
    include: ["kill/**/*.test.ts"],
    needs: "some minutes and python3: kills standalone under load and compares with a recount",
  },
];

/** Names the suite to run to vitest.config.ts; absent: everything but the suites. */
export const SUITE_VARIABLE = "TALLYHOUSE_TEST_SUITE";
