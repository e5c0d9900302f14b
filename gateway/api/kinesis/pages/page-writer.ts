/** The program of the thread that writes pages of GetRecords (page-thread.ts): one after another, as they are asked for. */
import { parentPort } from "node:worker_threads";
import { type FromThread, type ToThread, writeJob } from "./page-job.ts";
import { RecordWindow } from "./record-window.ts";

const windows: RecordWindow[] = [];

function answer(asked: ToThread): FromThread {
  if ("make" in asked) {
    const window = new RecordWindow("shared");
    const { memory, more } = window.arena;
    windows[asked.make] = window;
    const isShared = more !== undefined && memory.buffer instanceof SharedArrayBuffer;
    return { made: asked.make, memory: isShared ? memory.buffer : undefined, outAt: window.outAt };
  }
  try {
    return { written: asked.write, end: writeJob(asked, windows[asked.write]!) };
  } catch {
    // Who asked writes it itself, and meets the same.
    return { written: asked.write, end: undefined };
  }
}

parentPort?.on("message", (asked: ToThread) => parentPort!.postMessage(answer(asked)));
