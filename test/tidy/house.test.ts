import { looseDependencies, machinePaths, registryHosts } from "./house-rules.ts";
import { judge } from "./judge.ts";

// Put together here, because this file is judged too.
const home = ["", "home", "anna", "x"].join("/");
const root = ["", "root", "y"].join("/");
const npm = ["registry", "npmjs", "org"].join(".");
const pypi = ["pypi", "org"].join(".");

judge("no path of one machine", machinePaths, {
  broken: { "a.md": `see ${home}\n`, "b.sh": `cd "${root}"\n` },
  problems: [`a.md:1 names ${home}, a path of one machine`, `b.sh:1 names ${root}, a path of one machine`],
  kept: {
    "a.md": `GET /v1${home}, .${home} and https://example.org${root}\n`,
    "b.sh": 'mktemp -d "${TMPDIR:-/tmp}/x"\n',
  },
});

judge("no registry host", registryHosts, {
  broken: { "a.json": `{"u": "https://${npm}/x"}\n`, "b.sh": `curl https://${pypi}\n` },
  problems: [`a.json:1 names the registry ${npm}/x`, `b.sh:1 names the registry ${pypi}`],
  kept: { "a.json": '{"u": "https://turborepo.com/schema.json"}\n' },
});

judge("exact dependencies", looseDependencies, {
  broken: {
    "package.json": '{"license":"Apache-2.0","devDependencies":{"vitest":"^4.1.11"}}',
    "packages/x/package.json": '{"dependencies":{"@tallyhouse/domain":"0.1.0","zod":"4.6.7"}}',
  },
  problems: [
    "package.json depends on vitest ^4.1.11: give the exact version",
    "packages/x/package.json does not state the licence Apache-2.0",
    "packages/x/package.json depends on @tallyhouse/domain 0.1.0: give the exact version",
  ],
  kept: {
    "package.json": '{"license":"Apache-2.0","dependencies":{"@tallyhouse/domain":"*","zod":"4.6.7","x":"1.0.0-rc.1"}}',
  },
});
