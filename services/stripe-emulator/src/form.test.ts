import { describe, expect, it } from "vitest";
import { canonicalText, emptyGroup, FormError, type FormGroup, parseForm } from "./form.ts";

function parse(text: string): FormGroup {
  const group = emptyGroup();
  parseForm(text, group);
  return group;
}

function plain(text: string): unknown {
  return JSON.parse(JSON.stringify(parse(text)));
}

describe("form parameters", () => {
  it.each([
    ["", {}],
    ["a=1&b=", { a: "1", b: "" }],
    ["a", { a: "" }],
    ["a=x%20y+z%26%3D", { a: "x y z&=" }],
    ["a[b][c]=1&a[b][d]=2", { a: { b: { c: "1", d: "2" } } }],
    ["a%5Bb%5D=1", { a: { b: "1" } }],
    ["e[]=x&e[]=y", { e: { 0: "x", 1: "y" } }],
    ["t[0][up_to]=5&t[1][up_to]=inf", { t: { 0: { up_to: "5" }, 1: { up_to: "inf" } } }],
    ["a=1&a=2", { a: "2" }],
  ])("reads %j", (text, expected) => {
    expect(plain(text)).toEqual(expected);
  });

  it.each(["a=%zz", "m[a=b]=1", "a[b=1", "a]b[=1", "a[b]c=1", "a=1&a[b]=2", "a[b]=2&a=1", `a${"[b]".repeat(10)}=1`])(
    "refuses %j",
    (text) => {
      expect(() => parse(text)).toThrow(FormError);
    },
  );

  it("takes no more than 1,000 pairs", () => {
    const pairs = Array.from({ length: 1_001 }, (_, at) => `m[${at}]=1`);
    expect(() => parse(pairs.join("&"))).toThrow("at most 1000 parameters");
    expect(Object.keys(parse(pairs.slice(1).join("&"))["m"] ?? {})).toHaveLength(1_000);
  });

  it("knows no prototype", () => {
    const group = parse("__proto__[polluted]=1&m[__proto__]=x&constructor=1");
    expect(Object.keys(group)).toEqual(["__proto__", "m", "constructor"]);
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
  });

  it("has one canonical text, whatever the order", () => {
    expect(canonicalText(parse("b=1&a[y]=2&a[x]=3"))).toBe(canonicalText(parse("a[x]=3&a[y]=2&b=1")));
    expect(canonicalText(parse("a[x]=1"))).not.toBe(canonicalText(parse("a[x]=2")));
  });
});
