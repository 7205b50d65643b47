/** Tests that cannot fail, do not run or wait for time instead of a condition. */
import { bareCodeOf, commentsOf, liveMatches } from "./source-text.ts";
import { filesOf, lineAt, problemsOf, TEST_CODE, type Tree } from "./tree.ts";

const TESTS = /^(?:test|packages\/testkit\/src)\/.*\.ts$/;

function testFiles(tree: Tree): { path: string; text: string; lines: string[] }[] {
  return filesOf(tree, /\.ts$/).filter(({ path }) => TESTS.test(path) || TEST_CODE.test(path));
}

const NOT_RUN =
  /\b(?:test|it|describe|suite|bench)\b[\w.]*\.(skip|skipIf|runIf|only|todo|fails)\b|\b(xit|xtest|xdescribe|fit|fdescribe)\(/g;

/** No test is skipped, focused, left to be written or expected to fail. */
export function testsNotRun(tree: Tree): string[] {
  return testFiles(tree).flatMap(({ path, text }) =>
    problemsOf(
      { path, text: bareCodeOf(text) },
      NOT_RUN,
      ([, how, prefixed]) => `uses ${how ?? prefixed}: a test runs or is not there`,
    ),
  );
}

const SLEEP =
  /\bawait\s+(?:sleep|delay|wait|pause|setTimeout)\(|\bsetTimeout\((?!(?:[^()]|\([^()]*\))*,\s*0\s*\))|\bimport \{[^}]*\bsetTimeout\b[^}]*\} from "node:timers\/promises"/g;
/** A random moment is not a condition that could be waited for. */
const ALLOWED = /\btime passes here: \S.{9,}/;

/**
 * Tests wait for conditions (`until` of the testkit), never for time. Where time itself is the subject, such as a kill at a
 * random moment, a comment `time passes here: why` on that line or the one above allows it.
 */
export function sleepsInTests(tree: Tree): string[] {
  return testFiles(tree)
    .filter(({ path }) => path !== "packages/testkit/src/until.ts")
    .flatMap(({ path, text }) => {
      const comments = commentsOf(text).split("\n");
      return liveMatches(text, SLEEP).flatMap(({ index }) => {
        const line = lineAt(text, index);
        const isAllowed = ALLOWED.test(`${comments[line - 2]} ${comments[line - 1]}`);
        return isAllowed ? [] : [`${path}:${line} waits for time instead of a condition`];
      });
    });
}

const MOCK = /\bvi\.(?:mock|doMock|fn|spyOn|hoisted)\(/g;
const VACUOUS = /\bexpect\((?:true|false|1|0)\)\.to(?:Be|Equal)|\bexpect\([^()]*\);/g;

/** No mocks: another port is passed instead. No expectation that holds whatever the code does. */
export function emptyTests(tree: Tree): string[] {
  return testFiles(tree).flatMap(({ path, text }) => [
    ...problemsOf({ path, text: bareCodeOf(text) }, MOCK, ([call]) => `uses ${call.slice(0, -1)}: pass another port`),
    ...problemsOf({ path, text: bareCodeOf(text) }, VACUOUS, () => "expects what cannot fail"),
  ]);
}
