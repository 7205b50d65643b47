export { type EmbeddedLogOptions, openEmbeddedLog } from "./embedded-log.ts";
export type { KafkaClientOptions, KafkaLogger } from "./kafka-client.ts";
export { type KafkaLogOptions, openKafkaLog } from "./kafka-log.ts";
export { deleteTopic, ensureTopic, type EnsureTopicOptions } from "./kafka-topic.ts";
export { RECORD_BYTES_MAX } from "./record-size.ts";
