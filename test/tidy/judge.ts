import { describe, expect, test } from "vitest";
import { readRepository, type Rule, treeOf } from "./tree.ts";

type Files = Readonly<Record<string, string>>;

let repository: ReturnType<typeof readRepository> | undefined;

/**
 * Three tests for one rule: the repository keeps it; a tree made to break it is reported with exactly these problems, since a
 * rule that cannot fail holds nothing; a tree that keeps it is not reported.
 */
export function judge(
  name: string,
  rule: Rule,
  examples: { broken: Files; problems: readonly string[]; kept: Files },
): void {
  describe(`rule: ${name}`, () => {
    test("holds in the repository", () => {
      repository ??= readRepository();
      expect(rule(repository)).toEqual([]);
    });
    test("is reported when broken", () => {
      expect(examples.problems).not.toEqual([]);
      expect(rule(treeOf(examples.broken))).toEqual(examples.problems);
    });
    test("is not reported when kept", () => {
      expect(rule(treeOf(examples.kept))).toEqual([]);
    });
  });
}
