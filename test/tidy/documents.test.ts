import { brokenLinks, longDocuments, missingCommands, missingFileNames } from "./document-rules.ts";
import { judge } from "./judge.ts";

judge("links of documents", brokenLinks, {
  broken: {
    "README.md": "[a](docs/gone.md)\n[b](docs/here.md#gone)\n",
    "docs/here.md": "# Here\n[up](../GONE.md)\n",
  },
  problems: [
    "README.md:1 links to docs/gone.md, which does not exist",
    "README.md:2 links to docs/here.md#gone, a heading that does not exist",
    "docs/here.md:2 links to ../GONE.md, which does not exist",
  ],
  kept: {
    "README.md": "[a](docs/here.md#g1-nothing-is-lost) [b](https://example.org/x) [c](docs)\n",
    "docs/here.md": "## G1: nothing is lost\n[up](../README.md)\n",
  },
});

judge("file names in documents", missingFileNames, {
  broken: {
    "ARCHITECTURE.md": "`services/gateway/src/gone.ts`\n`packages/*/src/gone.ts`\n",
    "services/gateway/src/app.ts": "",
    "packages/domain/src/index.ts": "",
  },
  problems: [
    "ARCHITECTURE.md:1 names services/gateway/src/gone.ts, which does not exist",
    "ARCHITECTURE.md:2 names packages/*/src/gone.ts, which does not exist",
  ],
  kept: {
    "ARCHITECTURE.md": "`services/{gateway,other}/src/*.ts` `packages/domain/` `src/gone.ts` `services/gateway`\n",
    "services/gateway/src/app.ts": "",
    "packages/domain/src/index.ts": "",
  },
});

judge("commands in documents", missingCommands, {
  broken: { "README.md": "`npm run gone` and `npm test`\n", "package.json": '{"scripts":{"start":"x"}}' },
  problems: [
    "README.md:1 shows `npm run gone`, which is no script",
    "README.md:1 shows `npm test`, which is no script",
  ],
  kept: {
    "README.md": "`npm ci && npm start`, `npm run bench:ingest`\n",
    "package.json": '{"scripts":{"start":"x","bench:ingest":"y"}}',
  },
});

judge("lengths of documents", longDocuments, {
  broken: {
    "README.md": "x\n".repeat(151),
    "ARCHITECTURE.md": "x\n".repeat(251),
    "services/gateway/README.md": "x\n".repeat(61),
  },
  problems: [
    "README.md has 151 lines, more than 150",
    "ARCHITECTURE.md has 251 lines, more than 250",
    "services/gateway/README.md has 61 lines, more than 60",
  ],
  kept: {
    "README.md": "x\n".repeat(150),
    "services/gateway/README.md": "x\n".repeat(60),
    "docs/long.md": "x\n".repeat(900),
  },
});
