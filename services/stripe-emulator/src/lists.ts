import { type Answer, badRequest, missingReference } from "./answer.ts";

/** The paging parameters of every v1 list, after the check against the API description. */
export interface PageParameters {
  readonly limit?: number;
  readonly starting_after?: string;
  readonly ending_before?: string;
}

const LIMIT_DEFAULT = 10;
const LIMIT_MAX = 100;

interface ListSource<T> {
  /** The path, echoed as `url`. */
  readonly url: string;
  /** For messages: `No such <noun>: 'x'`. */
  readonly noun: string;
  /** Newest first is counted from the end: the list shows `rows` backwards. */
  readonly rows: readonly T[];
  /** -1 when the cursor names nothing. */
  positionOf(id: string): number;
  /** Which rows the list shows. */
  has(row: T): boolean;
}

/** One page of a v1 list: newest first, `has_more` in the direction of paging. A cursor must name a row. */
export function listPage<T>(source: ListSource<T>, page: PageParameters): Answer {
  const limit = page.limit ?? LIMIT_DEFAULT;
  const limitProblem = checkLimit(limit);
  if (limitProblem !== undefined) return limitProblem;
  const isBackwards = page.ending_before !== undefined;
  if (isBackwards && page.starting_after !== undefined) {
    return badRequest("Received both starting_after and ending_before parameters. Please pass in only one.");
  }
  const cursor = page.ending_before ?? page.starting_after;
  let position = isBackwards ? -1 : source.rows.length;
  if (cursor !== undefined) {
    position = source.positionOf(cursor);
    const param = isBackwards ? "ending_before" : "starting_after";
    if (position === -1) return missingReference({ noun: source.noun, id: cursor, param });
  }
  const data: T[] = [];
  const step = isBackwards ? 1 : -1;
  // One row more than asked for tells whether there are more.
  for (let at = position + step; at >= 0 && at < source.rows.length && data.length <= limit; at += step) {
    const row = source.rows[at];
    if (row !== undefined && source.has(row)) data.push(row);
  }
  const hasMore = data.length > limit;
  if (hasMore) data.pop();
  if (isBackwards) data.reverse();
  return { status: 200, body: { object: "list", data, has_more: hasMore, url: source.url } };
}

function checkLimit(limit: number): Answer | undefined {
  if (limit >= 1 && limit <= LIMIT_MAX) return undefined;
  const bound = limit < 1 ? "greater than or equal to 1" : `less than or equal to ${LIMIT_MAX}`;
  const message = `This value must be ${bound} (it currently is '${limit}').`;
  return badRequest(message, { code: "parameter_invalid_integer", param: "limit" });
}
