export { type EmbeddedLogOptions, openEmbeddedLog } from "./embedded-log.ts";
export type { FileSystem, LogFile } from "./file-system.ts";
export { RECORD_BYTES_MAX } from "./record-size.ts";
