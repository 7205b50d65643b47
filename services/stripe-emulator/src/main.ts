import { once } from "node:events";
import process from "node:process";
import { parseArgs } from "node:util";
import { startStripeEmulator } from "./index.ts";

const USAGE = "usage: [--host 127.0.0.1] [--port 12111] [--data FOLDER] [--seed TEXT] [--limits on|off]";

const { values } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "12111" },
    data: { type: "string" },
    seed: { type: "string" },
    limits: { type: "string", default: "on" },
  },
});
const port = Number(values.port);
if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new Error(`--port takes a port number; ${USAGE}`);
if (values.limits !== "on" && values.limits !== "off") throw new Error(`--limits takes on or off; ${USAGE}`);

const emulator = await startStripeEmulator({
  host: values.host,
  port,
  limits: values.limits,
  ...(values.data === undefined ? {} : { dataFolder: values.data }),
  ...(values.seed === undefined ? {} : { seed: values.seed }),
});
console.log(
  `Stripe emulator at ${emulator.url}, ${values.data === undefined ? "in memory" : `data in ${values.data}`}`,
);
await Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
await emulator.close();
