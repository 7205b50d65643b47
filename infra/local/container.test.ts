/**
 * No container engine is needed: a `docker` of this test's own starts a process in a container's place, beside the client that
 * waits for it. What it cannot show is that the official images take the variables that they are given.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { afterEach, beforeEach, expect, test } from "vitest";
import { containerRecipe, IMAGES, usesContainers } from "./container.ts";
import { freePort } from "./free-port.ts";
import { startServer } from "./local-server.ts";

/** Answers with how often this container was started: its data. */
const INSIDE = `
  const { appendFileSync, readFileSync } = require("node:fs");
  const [port, data] = process.argv.slice(1);
  appendFileSync(data, "x");
  require("node:http").createServer((_, answer) => answer.end(readFileSync(data))).listen(Number(port), "127.0.0.1");`;

const DOCKER = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$@" >> calls
runs() {
  "${process.execPath}" -e "$(cat inside.js)" "$(cat "$1.port")" "$1.data" &
  echo $! > "$1.pid"
  trap 'kill -TERM "$(cat "'"$1"'.pid")"' TERM INT
  wait $!
}
case "$1" in
  info) test ! -e away ;;
  image) exit 0 ;;
  run) echo "$5" | cut -d : -f 2 > "$3.port"; runs "$3" ;;
  start) runs "$3" ;;
  kill) kill -9 "$(cat "$2.pid")" ;;
  inspect) cat "$4.pid" ;;
  rm) kill -9 "$(cat "$4.pid")" 2> /dev/null; rm -f "$4".* ;;
  *) exit 1 ;;
esac
`;

let folder: string;
const path = process.env["PATH"] ?? "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tallyhouse-docker-"));
  writeFileSync(join(folder, "inside.js"), INSIDE);
  writeFileSync(join(folder, "docker"), DOCKER);
  chmodSync(join(folder, "docker"), 0o755);
  process.env["PATH"] = `${folder}${delimiter}${path}`;
});
afterEach(() => {
  process.env["PATH"] = path;
  rmSync(folder, { recursive: true, force: true });
});

async function startContainer() {
  const port = await freePort();
  const recipe = await containerRecipe({
    image: "some:1",
    port,
    insidePort: 80,
    environment: { COLOUR: "dark green" },
  });
  const ask = async (): Promise<string> => (await fetch(`http://127.0.0.1:${port}/`)).text();
  const server = await startServer({
    name: "the server",
    ...recipe,
    logPath: join(folder, "log"),
    isAnswering: () =>
      ask().then(
        () => true,
        () => false,
      ),
  });
  return { server, ask, container: recipe.container };
}

test("a container is killed, comes back with its data and port, stops when asked, and is removed at the end", async () => {
  const { server, ask, container } = await startContainer();
  expect(await ask()).toBe("x");
  const killedPid = server.pid;
  server.kill();
  await server.ended();
  await expect(ask()).rejects.toThrow("fetch failed");
  await server.restart();
  expect(await ask()).toBe("xx");
  expect(server.pid).not.toBe(killedPid);
  await expect(server.restart(["strace"])).rejects.toThrow("takes no strace");
  await server.stop();
  await expect(ask()).rejects.toThrow("fetch failed");
  expect(existsSync(join(folder, `${container}.data`)), "kept until this process ends").toBe(true);
  const calls = readFileSync(join(folder, "calls"), "utf8").split("\n");
  expect(calls).toContain(`start --attach ${container}`);
  expect(calls.find((call) => call.startsWith("run"))).toMatch(
    new RegExp(`^run --name ${container} --publish 127\\.0\\.0\\.1:\\d+:80 --env COLOUR=dark green some:1$`),
  );
});

test("a process that ends removes its containers", async () => {
  const program = `
    import { existsSync } from "node:fs";
    import { containerRecipe } from ${JSON.stringify(join(import.meta.dirname, "container.ts"))};
    import { startServer } from ${JSON.stringify(join(import.meta.dirname, "local-server.ts"))};
    const recipe = await containerRecipe({ image: "some:1", port: ${await freePort()}, insidePort: 80, environment: {} });
    await startServer({ name: "x", ...recipe, logPath: "log", isAnswering: async () => existsSync(recipe.container + ".pid") });
    console.log(recipe.container);
    process.exit(0);`;
  const container = execFileSync(process.execPath, ["--input-type=module-typescript", "-e", program], {
    cwd: folder,
    encoding: "utf8",
  }).trim();
  expect(readFileSync(join(folder, "calls"), "utf8")).toContain(`rm --force --volumes ${container}`);
  expect(existsSync(join(folder, `${container}.pid`))).toBe(false);
});

test("the switch: what is asked for, else whatever runs here", async () => {
  expect(await usesContainers("processes")).toBe(false);
  expect(await usesContainers("containers")).toBe(true);
  expect(await usesContainers("")).toBe(true);
  writeFileSync(join(folder, "away"), "");
  expect(await usesContainers("")).toBe(false);
  await expect(usesContainers("docker")).rejects.toThrow("LOCAL_SERVERS is containers or processes, not docker");
});

test("images are those of docker-compose.yml", () => {
  const compose = readFileSync(new URL("../../docker-compose.yml", import.meta.url), "utf8");
  for (const name of ["kafka", "clickhouse", "postgres"] as const)
    expect(compose).toContain(`image: ${IMAGES[name]}\n`);
});
