import { once } from "node:events";
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { openClickHouse } from "./open.ts";

test.each([
  ["http://127.0.0.1:PORT", "secret"],
  ["http://user:secret@127.0.0.1:PORT/database", undefined],
])(
  "a server that is away (%s) is STORE_UNAVAILABLE, and the sentence names the host but no password",
  async (at, password) => {
    const free = createServer().listen(0, "127.0.0.1");
    await once(free, "listening");
    const address = free.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    free.close();
    await once(free, "close");
    const url = at.replace("PORT", String(port));
    await expect(openClickHouse({ url, ...(password === undefined ? {} : { password }) })).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      action: "retry",
      message: `the analytics store could not be reached at 127.0.0.1:${port} (ECONNREFUSED)`,
    });
  },
);
