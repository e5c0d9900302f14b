/** Load from a process of its own, so that neither the bench nor the server pays for it. */
import { fork } from "node:child_process";
import { nodeFlags, scriptPath } from "../../test/support/script.ts";
import { cpuSeconds } from "../peers/server.ts";
import type { Driven } from "./drive.ts";
import type { Codec, Endpoint } from "./kinesis-requests.ts";

/** What is sent. `requests` under way in all: connections × window. */
export type Load = {
  readonly port: number;
  readonly connections: number;
  readonly window: number;
  readonly measureMs?: number;
  readonly warmMs?: number;
} & (
  | {
      readonly kind: "put-records";
      readonly endpoint: Endpoint;
      readonly stream: string;
      readonly records: number;
      readonly recordBytes: number;
      readonly codec?: Codec;
      readonly h2?: boolean;
      /** Of its frames at most, where the server allows more: some clients send 16 KiB, whatever is allowed. */
      readonly h2FrameBytes?: number;
    }
  | {
      readonly kind: "put-record";
      readonly endpoint: Endpoint;
      readonly stream: string;
      readonly recordBytes: number;
    }
  | {
      readonly kind: "get-records";
      readonly endpoint: Endpoint;
      readonly stream: string;
      readonly records: number;
      readonly pages: number;
      readonly codec?: Codec;
    }
  | { readonly kind: "redis-add"; readonly key: string; readonly recordBytes: number }
  | {
      readonly kind: "redis-range";
      readonly key: string;
      readonly records: number;
      readonly pages: number;
      readonly recordBytes: number;
    }
  | { readonly kind: "jetstream"; readonly subject: string; readonly recordBytes: number }
  | {
      readonly kind: "push";
      readonly endpoint: Endpoint;
      readonly stream: string;
      readonly recordsPerSecond: number;
      readonly recordBytes: number;
    }
  | { readonly kind: "sensors"; readonly recordBytes: number }
  | {
      readonly kind: "agents";
      readonly stream: string;
      readonly records: number;
      readonly recordBytes: number;
    }
);

export interface LoadResult extends Driven {
  /** Requests, or records where a request holds many. */
  readonly perSecond: number;
  /** Of the server, for each million of records. */
  readonly serverCpuSecondsPerMillion: number;
  /** Share of one core that the generator used: near 1, it is what limits. */
  readonly generatorCores: number;
}

/** @param pid the server's, whose CPU time is read from when it is warm until the end */
export async function runLoad(load: Load, pid: number, recordsPerRequest = 1): Promise<LoadResult> {
  const child = fork(scriptPath("./load-process.ts", import.meta.url), [], {
    execArgv: [...nodeFlags],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  try {
    return await new Promise<LoadResult>((resolve, reject) => {
      let before = 0;
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`the load generator ended (${code})`)));
      child.on("message", (message: { warm?: true; error?: string; driven?: Driven; cores?: number }) => {
        if (message.warm) before = cpuSeconds(pid);
        if (message.error !== undefined) reject(new Error(message.error));
        if (message.driven === undefined) return;
        const records = message.driven.requests * recordsPerRequest;
        resolve({
          ...message.driven,
          perSecond: records / message.driven.seconds,
          serverCpuSecondsPerMillion: (cpuSeconds(pid) - before) / (records / 1e6),
          generatorCores: message.cores ?? 0,
        });
      });
      child.send(load);
    });
  } finally {
    child.removeAllListeners("exit");
    const gone = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await gone;
    }
  }
}
