/** The second judge of an analyst's statement: the tree that the engine itself made of it (`EXPLAIN AST`). */
import { FUNCTIONS, NODES, PARAMETRISED_VIEWS, SET_FUNCTIONS, SETTINGS_TABLE, VIEWS } from "./analyst-names.ts";

interface Node {
  readonly type: string;
  /** Of a function, table or column. */
  readonly name: string;
  readonly children: Node[];
}

/** Names a statement may use as tables besides the views. */
export interface TableNames {
  /** The connection's database, whose name may stand before a view's. */
  readonly database: string;
  /** What `WITH` defined. */
  readonly withNames: ReadonlySet<string>;
  /** Every table there is: a WITH name equal to one could be out of its scope and mean the table. */
  readonly existing: ReadonlySet<string>;
}

/** Nodes of one statement: far more than a person writes, far less than what takes a noticeable time to walk. */
const NODES_MAX = 20_000;
/** A literal is quoted and its line ends are escaped, so a node is one line; names are plain (analyst-text.ts). */
const LINE = /^( *)(\w+)(?: (?!\()(.*?))?(?: \(alias [\w ]+\))?(?: \(children \d+\))?$/;

/** Why the statement with this tree is refused, or null when every node of it is known and allowed. Pure. */
export function refusalOfTree(explained: string, names: TableNames): string | null {
  const tree = treeOf(explained);
  if (tree === null) return "a statement that cannot be judged";
  if (tree.type !== "SelectWithUnionQuery") return "only SELECT";
  const waiting: Node[] = [tree];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    const reason = refusalOfNode(node, names);
    if (reason !== null) return reason;
    waiting.push(...node.children);
  }
  return null;
}

function refusalOfNode(node: Node, names: TableNames): string | null {
  if (!NODES.has(node.type)) return `the clause that the engine calls ${node.type}`;
  switch (node.type) {
    case "TableIdentifier":
      return isReadable(node.name, names) ? null : `the table ${node.name}`;
    case "TableExpression":
      return refusalOfSource(node);
    case "Function":
      return refusalOfFunction(node);
    default:
      return null;
  }
}

function isReadable(name: string, { database, withNames, existing }: TableNames): boolean {
  if (name === SETTINGS_TABLE) return true;
  const own = name.startsWith(`${database}.`) ? name.slice(database.length + 1) : name;
  return VIEWS.has(own) || (withNames.has(name) && !existing.has(name));
}

function refusalOfSource({ children }: Node): string | null {
  const [source, ...others] = children;
  if (source === undefined || others.length > 0) return "a table with a modifier";
  const isTableFunction = source.type === "Function" && !PARAMETRISED_VIEWS.has(source.name);
  return isTableFunction ? `the table function ${source.name}` : null;
}

function refusalOfFunction(node: Node): string | null {
  // Where a view stands as an expression the engine finds no such function; where it stands as a table it is allowed.
  if (PARAMETRISED_VIEWS.has(node.name)) return null;
  const name = node.name.toLowerCase();
  if (!FUNCTIONS.has(name)) return `the function ${node.name}`;
  if (!SET_FUNCTIONS.has(name)) return null;
  const set = node.children[0]?.children[1];
  return set !== undefined && isSet(set) ? null : "IN over anything but a list or a sub-query";
}

/** A list, a sub-query, or a bound value. Not a name: it would be a table's. */
function isSet({ type, name, children }: Node): boolean {
  if (type === "Literal" || type === "Subquery") return true;
  const isCast = name === "CAST" && (children[0]?.children.every((child) => child.type === "Literal") ?? false);
  return type === "Function" && (name === "tuple" || name === "array" || isCast);
}

function treeOf(explained: string): Node | null {
  const lines = explained.split("\n").filter((line) => line !== "");
  if (lines.length > NODES_MAX) return null;
  const path: Node[] = [];
  for (const line of lines) {
    const match = LINE.exec(line);
    const [, indent = "", type = "", name = ""] = match ?? [];
    const isRoot = path.length === 0;
    // A second root would be a second statement's.
    if (match === null || indent.length > path.length || (indent.length === 0) !== isRoot) return null;
    const node: Node = { type, name, children: [] };
    path.length = indent.length;
    path.at(-1)?.children.push(node);
    path.push(node);
  }
  return path[0] ?? null;
}
