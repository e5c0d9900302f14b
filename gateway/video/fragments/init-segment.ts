/** The head of an fMP4 (ftyp + moov) for a format, made by mediabunny; what follows is ours (movie-fragment.ts). */
import {
  BufferTarget,
  EncodedAudioPacketSource,
  EncodedPacket,
  EncodedVideoPacketSource,
  Mp4OutputFormat,
  Output,
} from "mediabunny";
import type { AudioFormat } from "../depacketise/audio-source.ts";
import { VIDEO_TIMESCALE, type VideoFormat } from "../depacketise/video-format.ts";

export const VIDEO_TRACK_ID = 1;
/** Where a file holds sound too. Its timescale is the sample rate. */
export const AUDIO_TRACK_ID = 2;

export interface InitSegment {
  /** For MediaSource.addSourceBuffer. */
  readonly mimeType: string;
  readonly bytes: Buffer;
}

const silent = new WeakMap<VideoFormat, Promise<InitSegment>>();
const withSound = new WeakMap<AudioFormat, { video: VideoFormat; segment: Promise<InitSegment> }>();

/** Made once for a format, or for the last pair of formats; the same promise for the same ones. */
export function initSegmentOf(video: VideoFormat, audio?: AudioFormat): Promise<InitSegment> {
  const known = audio === undefined ? silent.get(video) : withSound.get(audio);
  if (known instanceof Promise) return known;
  if (known?.video === video) return known.segment;
  const segment = makeInitSegment(video, audio);
  if (audio === undefined) silent.set(video, segment);
  else withSound.set(audio, { video, segment });
  return segment;
}

async function makeInitSegment(video: VideoFormat, audio: AudioFormat | undefined): Promise<InitSegment> {
  const boxes: Buffer[] = [];
  const keep = (data: Uint8Array): void => {
    boxes.push(Buffer.from(data));
  };
  const output = new Output({
    format: new Mp4OutputFormat({ fastStart: "fragmented", onFtyp: keep, onMoov: keep }),
    target: new BufferTarget(),
  });
  const pictures = new EncodedVideoPacketSource(video.kind);
  const sounds = new EncodedAudioPacketSource("aac");
  // mediabunny derives the track's timescale from the frame rate; this one gives RTP's ticks.
  output.addVideoTrack(pictures, { frameRate: VIDEO_TIMESCALE });
  if (audio !== undefined) output.addAudioTrack(sounds);
  await output.start();
  // The head is written with the first fragment, so one sample a track that nobody keeps is needed.
  const picture = new EncodedPacket(firstSampleOf(video), "key", 0, 1 / VIDEO_TIMESCALE);
  await pictures.add(picture, {
    decoderConfig: {
      codec: video.codec,
      codedWidth: video.width,
      codedHeight: video.height,
      ...(video.configuration !== undefined && { description: video.configuration }),
    },
  });
  if (audio !== undefined) {
    await sounds.add(new EncodedPacket(new Uint8Array(4), "key", 0, 1 / VIDEO_TIMESCALE), {
      decoderConfig: {
        codec: audio.codec,
        sampleRate: audio.sampleRate,
        numberOfChannels: audio.channels,
        description: audio.configuration,
      },
    });
  }
  await output.finalize();
  const codecs = audio === undefined ? video.codec : `${video.codec},${audio.codec}`;
  return { mimeType: `video/mp4; codecs="${codecs}"`, bytes: Buffer.concat(boxes) };
}

/** Without a configuration record mediabunny makes one from a first sample in Annex B. */
function firstSampleOf(video: VideoFormat): Uint8Array {
  const startCode = Buffer.from([0, 0, 0, 1]);
  if (video.configuration !== undefined) return Buffer.from([0, 0, 0, 1, 0x65]);
  return Buffer.concat(video.parameterSets.flatMap((set) => [startCode, set]));
}
