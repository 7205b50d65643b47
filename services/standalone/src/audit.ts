/** The auditor on what this process can open: for tests, and for a folder that no process runs on. */
import { type AuditReport, runAudit } from "@tallyhouse/console";
import { type Environment, parseConfig } from "@tallyhouse/runtime";

export type { AuditCheck, AuditReport } from "@tallyhouse/console";
export { runAudit } from "@tallyhouse/console";
