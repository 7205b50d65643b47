/** A consumer of a shared group as a process of its own, to be killed: prints a line for every assignment. */
import { type KafkaLogOptions, openKafkaLog } from "@tallyhouse/eventlog";

const options = JSON.parse(process.argv[2] ?? "") as KafkaLogOptions;
const { log, failed } = await openKafkaLog(options);
await log.subscribe({
  onAssigned(partitions) {
    process.stdout.write(`${JSON.stringify(partitions)}\n`);
  },
  onEntries: async () => undefined,
});
await failed;
