import { openMonth } from "./month-stores.ts";
const m = await openMonth("/tmp/w/reads-x/data", { events: 3_000_000, customers: 10_000, seed: 1 });
console.log(await m.fill());
await m.merge();
console.log("merged");
await m.close();
