/** HTML that cannot forget to escape: every value of a template is text unless it was made by a template. */

const markupBrand = Symbol("markup");

/** A piece of finished HTML. Made only here. */
export interface Markup {
  readonly [markupBrand]: string;
}

type Value = string | number | Markup | null | readonly Markup[];

/**
 * Template tag; not named html, or the formatter would move white space inside the page. Text and numbers are escaped, for element content and for attributes in double quotes; null is
 * nothing.
 */
export function markup(strings: TemplateStringsArray, ...values: readonly Value[]): Markup {
  let text = strings[0] ?? "";
  for (const [index, value] of values.entries()) text += markupOf(value) + (strings[index + 1] ?? "");
  return { [markupBrand]: text };
}

/** Text of our own source that is markup already, such as a style sheet. Never anything that came from outside. */
export function ownMarkup(text: string): Markup {
  return { [markupBrand]: text };
}

/** The finished document. */
export function renderMarkup(document: Markup): string {
  return document[markupBrand];
}

function markupOf(value: Value): string {
  if (value === null) return "";
  if (typeof value === "string" || typeof value === "number") return escapeText(String(value));
  if (Array.isArray(value)) return value.map((part: Markup) => part[markupBrand]).join("");
  return (value as Markup)[markupBrand];
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? "");
}
