// Plain JavaScript on purpose: it must run on any Node. npm puts node_modules/.bin first, so scripts get the pinned Node 24;
// when install scripts were blocked, the shell's Node is used in silence, and this says so in one sentence.
import process from "node:process";

const wanted = 24;
if (Number(process.versions.node.split(".")[0]) < wanted) {
  process.stderr.write(
    `Tallyhouse runs on Node ${wanted}, which npm ci installs beside it, but this is Node ${process.versions.node}: ` +
      "run npm ci again without --ignore-scripts, and start through npm run.\n",
  );
  process.exit(1);
}
