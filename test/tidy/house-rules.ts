/** What must not be in the repository at all, and what dependencies look like. */
import { filesOf, problemsOf, type Tree } from "./tree.ts";

const MACHINE_PATH = /(?<![\w.~$}*-])\/(?:home|root|Users|work|private|var\/folders)(?:\/[\w.-]+)+/g;
const REGISTRY_HOST =
  /\b(?:registry\.(?:npmjs|yarnpkg)|deb\.debian|(?:repo1?|repository)\.(?:maven|apache)|proxy\.golang|pypi\.org|npm\.pkg\.github)[\w./-]*/g;

/** A path of one machine works on no other. */
export function machinePaths(tree: Tree): string[] {
  return filesOf(tree, /./).flatMap((file) =>
    problemsOf(file, MACHINE_PATH, ([path]) => `names ${path}, a path of one machine`),
  );
}

/** Where packages come from is the machine's setting, never the repository's. */
export function registryHosts(tree: Tree): string[] {
  return filesOf(tree, /./).flatMap((file) =>
    problemsOf(file, REGISTRY_HOST, ([host]) => `names the registry ${host}`),
  );
}

interface PackageFile {
  readonly workspaces?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly license?: string;
}

const EXACT = /^\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?$/;

/** Dependencies are exact versions; workspaces of this tree are `*`; every package states its licence. */
export function looseDependencies(tree: Tree): string[] {
  return filesOf(tree, /(?:^|\/)package\.json$/).flatMap(({ path, text }) => {
    const file = JSON.parse(text) as PackageFile;
    const all = { ...file.dependencies, ...file.devDependencies, ...file.optionalDependencies };
    return [
      ...(file.license === "Apache-2.0" ? [] : [`${path} does not state the licence Apache-2.0`]),
      ...Object.entries(all)
        .filter(([name, version]) => (name.startsWith("@tallyhouse/") ? version !== "*" : !EXACT.test(version)))
        .map(([name, version]) => `${path} depends on ${name} ${version}: give the exact version`),
    ];
  });
}
