/** A status as an agent gives it, for tests of what is made of it. */
import { type AgentStatus, judge } from "../../../agent/status/agent-status.ts";

export function madeStatus(changes: Partial<Omit<AgentStatus, "health">> = {}): AgentStatus {
  const status = {
    device: "pi-1",
    version: "0.1.0",
    uptimeMs: 61_000,
    residentBytes: 90 * 1_048_576,
    uplinkConnected: true,
    faults: [],
    uplink: { gateway: "mqtt://gateway:1883", connected: true, sinceMs: 5_000 },
    clock: { known: true, time: "2026-01-02T03:04:05.000Z", by: "ntp" as const, boundMs: 500 },
    buffer: {
      waitingRecords: 1_234,
      waitingBytes: 2_048,
      maxBytes: 1_048_576,
      oldestAgeMs: 90_000,
      droppedRecords: 0,
    },
    sources: [
      {
        name: "board",
        type: "serial",
        state: "running" as const,
        health: "running" as const,
        records: 12_345,
        rejected: 2,
        lastError: "LINE_BAD: not JSON (check the board)",
        recordsPerSecond: 4.5,
        lastRecordAgoMs: 400,
      },
    ],
    errors: [],
    ...changes,
  };
  return { ...status, health: judge(status) };
}
