import { expect, test } from "vitest";
import { bareCodeOf, codeOf, commentsOf, liveMatches } from "./source-text.ts";

test("comments are blanked, strings that look like comments are not", () => {
  expect(codeOf('const a = "// no"; // yes\n/* two\nlines */ b')).toBe('const a = "// no";       \n      \n         b');
});

test("the contents of strings, templates and regular expressions are blanked, the code inside a template is not", () => {
  expect(bareCodeOf('f("x", `a ${b + `c ${d}`} e`, /["\'`]/g)')).toBe('f(" ", `   {b + `   {d}`}  `, /      g)');
});

test("a division is no regular expression", () => {
  expect(bareCodeOf('a / b; c / "x"')).toBe('a / b; c / " "');
});

test("what is no comment is blanked", () => {
  expect(commentsOf('a("// no"); // yes\n/* two */ b')).toBe("            // yes\n/* two */  ");
});

test("a match that begins in a string or a comment is not live", () => {
  expect(liveMatches('f("a"); // f("b")\ng(\'f("c")\')', /f\("(\w)"/g).map((match) => match[1])).toEqual(["a"]);
});
