/** What live views keep for joiners: bounded over all cameras, at the cost of nobody who watches. */
import assert from "node:assert/strict";
import test from "node:test";
import { H264Parameters } from "../../../gateway/video/depacketise/h264-format.ts";
import { lengthPrefixed } from "../../../gateway/video/depacketise/picture-source.ts";
import { LiveMemory } from "../../../gateway/video/live-memory.ts";
import { LiveView } from "../../../gateway/video/live-view.ts";
import { silentLog } from "../../../runtime/log.ts";
import { makeClip } from "../../support/h264-rtp.ts";
import { bufferBytes, heldAtMost } from "../../support/held-memory.ts";
import { eventually } from "../../support/program.ts";

const MIB = 1_048_576;
const FORMAT = { codec: "avc1", kind: "avc", width: 1, height: 1, configuration: undefined } as const;
const PARAMETERS = { ...FORMAT, parameterSets: [] };

function picture(n: number, keyFrame: boolean) {
  const bytes = 65_536;
  return { pieces: [Buffer.alloc(bytes, n)], bytes, keyFrame, pts90k: n * 6_000, producerUs: n };
}

test("views keep no more than they may together; the largest lets go", async () => {
  const memory = new LiveMemory(4 * MIB);
  const views = Array.from({ length: 64 }, () => new LiveView(silentLog, memory));
  const before = bufferBytes();
  for (let n = 0; n < 30; n++) {
    for (const view of views) view.push(PARAMETERS, picture(n, n === 0), undefined);
    assert.ok(memory.keptBytes <= 4 * MIB, `${memory.keptBytes} bytes are counted`);
  }
  assert.ok(memory.keptBytes > 0);
  await heldAtMost(8 * MIB, before);
});

test("who watches a camera whose group was let go sees every picture; who joins waits for a key frame", async () => {
  const { pictures } = await makeClip(45, { size: "64x64" });
  const parameters = new H264Parameters();
  parameters.learn(pictures[0]!.nals);
  const format = parameters.format!;
  const view = new LiveView(silentLog, new LiveMemory());
  const push = (from: number, to: number): void => {
    for (let n = from; n < to; n++) {
      const { nals, keyFrame, rtpTime } = pictures[n]!;
      view.push(
        format,
        { ...lengthPrefixed(nals, format), keyFrame, pts90k: rtpTime, producerUs: n },
        undefined,
      );
    }
  };
  const watch = (): number[] => {
    const seen: number[] = [];
    view.watch({ init() {}, media: (_segment, n) => void seen.push(n), backlogBytes: () => 0 });
    return seen;
  };
  const watched = watch();
  push(0, 15);
  await eventually("the first group is shown", 60_000, async () =>
    watched.length === 15 ? true : undefined,
  );
  push(15, 20);
  view.letGo();
  const joined = watch();
  push(20, 45);
  const all = pictures.map((_, n) => n);
  assert.deepEqual(watched, all);
  assert.deepEqual(joined, all.slice(30));
});
