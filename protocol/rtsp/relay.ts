/**
 * One publisher's packets for many readers. A reader who joins gets the last sender reports and the
 * last group of pictures first, so that its picture is there at once.
 *
 *   publisher → [group before] [newest group …] ← each reader's own place
 *
 * The packets are kept once, for all readers. One that is slow finishes the group before while the newest
 * is filled; one that is still slower is moved to the start of the newest, and never holds memory of its own.
 */
import type { Playback, ReaderSession } from "./handler.ts";
import { GroupFinder } from "./keyframe.ts";
import { PacketBlocks } from "./packet-blocks.ts";
import { parseRtcp } from "./rtcp.ts";
import { formatSdp, parseSdp, type SessionDescription } from "./sdp.ts";

export interface RelayOptions {
  /** Of the publisher. */
  readonly sdp: string;
  /** The most that is kept of a group of pictures for joiners; 8 MiB unless told. */
  readonly maxGroupBytes?: number;
  /** False: a joiner waits for the next key frame, as with most cameras, and gets nothing that others got before. */
  readonly replaysGroup?: boolean;
}

/** What a packet costs in memory beside its bytes, about. */
const PACKET_COST_BYTES = 64;
/** The same at most: its view, its entry and the place of that in a list. */
const HELD_PACKET_BYTES = 256;

interface Entry {
  readonly track: number;
  readonly isRtcp: boolean;
  readonly bytes: Buffer;
}

interface Group {
  readonly number: number;
  /** A joiner may begin here. */
  readonly startsWithKeyFrame: boolean;
  entries: Entry[];
  bytes: number;
}

interface Reader {
  readonly session: ReaderSession;
  /** The group that it reads, and its place in it; undefined while it waits for a key frame. */
  group: Group | undefined;
  next: number;
  waiting: boolean;
}

export class Relay {
  /** What DESCRIBE answers: the publisher's tracks under our control names. */
  readonly sdp: string;
  readonly description: SessionDescription;
  readonly #maxGroupBytes: number;
  readonly #replaysGroup: boolean;
  readonly #finder: GroupFinder;
  readonly #readers = new Set<Reader>();
  readonly #reports = new Map<number, Buffer>();
  readonly #blocks = new PacketBlocks();
  #before: Group | undefined;
  #newest: Group = { number: 0, startsWithKeyFrame: false, entries: [], bytes: 0 };
  #skippedGroups = 0;
  #closed = false;

  /** @throws MalformedSdpError */
  constructor(options: RelayOptions) {
    this.description = parseSdp(options.sdp);
    this.sdp = formatSdp(this.description);
    this.#maxGroupBytes = options.maxGroupBytes ?? 8 * 1_048_576;
    this.#replaysGroup = options.replaysGroup ?? true;
    this.#finder = new GroupFinder(this.description);
  }

  get readers(): number {
    return this.#readers.size;
  }

  /** What the packets that it keeps cost in memory, at most. */
  get heldBytes(): number {
    return heldBytesOf(this.#newest) + (this.#before === undefined ? 0 : heldBytesOf(this.#before));
  }

  /** How often a reader was too slow for a whole group of pictures. */
  get skippedGroups(): number {
    return this.#skippedGroups;
  }

  packet(track: number, rtp: Buffer): void {
    if (this.#closed) return;
    const newPackets = this.#finder.push({ track, rtp });
    this.#append({ track, isRtcp: false, bytes: rtp });
    if (newPackets > 0) this.#startGroup(true, newPackets);
    else this.#bound();
    this.#feedAll();
    this.#forgetRead();
  }

  /** Sender reports are passed on; what else a publisher says to us is not meant for readers. */
  rtcp(track: number, bytes: Buffer): void {
    if (this.#closed || parseRtcp(bytes)[0]?.type !== "sr") return;
    const report = this.#blocks.copy(bytes);
    this.#reports.set(track, report);
    this.#append({ track, isRtcp: true, bytes: report });
    this.#bound();
    this.#feedAll();
    this.#forgetRead();
  }

  /** The group before is for those who are not through with it; a joiner begins with the newest. */
  #forgetRead(): void {
    const before = this.#before;
    if (before === undefined) return;
    for (const reader of this.#readers) if (reader.group === before) return;
    this.#before = undefined;
  }

  /** For RtspHandler.play. */
  play(session: ReaderSession): Playback {
    const reader: Reader = { session, group: undefined, next: 0, waiting: false };
    return {
      start: () => {
        if (this.#closed) {
          session.close("the publisher left");
          return;
        }
        for (const [track, report] of this.#reports) session.sendRtcp(track, report);
        if (this.#replaysGroup && this.#newest.startsWithKeyFrame) reader.group = this.#newest;
        this.#readers.add(reader);
        this.#feed(reader);
      },
      close: () => {
        this.#readers.delete(reader);
      },
    };
  }

  /** The publisher left: all readers are disconnected. */
  close(reason: string): void {
    this.#closed = true;
    for (const reader of [...this.#readers]) reader.session.close(reason);
    this.#readers.clear();
    this.#before = undefined;
    this.#newest = { number: 0, startsWithKeyFrame: false, entries: [], bytes: 0 };
  }

  #append(entry: Entry): void {
    this.#newest.entries.push(entry);
    this.#newest.bytes += costOf(entry);
  }

  /** A group that no key frame ends, also one of reports alone. */
  #bound(): void {
    if (this.#newest.bytes > this.#maxGroupBytes) this.#startGroup(false, 0);
  }

  /**
   * Moves the newest RTP packets over into a group of their own, together with reports between them. A reader who was
   * sent some of them already goes on behind those.
   */
  #startGroup(startsWithKeyFrame: boolean, newPackets: number): void {
    const old = this.#newest;
    let from = old.entries.length;
    for (let left = newPackets; left > 0 && from > 0; ) {
      from--;
      if (!old.entries[from]!.isRtcp) left--;
    }
    const entries = old.entries.splice(from);
    const bytes = entries.reduce((sum, entry) => sum + costOf(entry), 0);
    old.bytes -= bytes;
    this.#newest = { number: old.number + 1, startsWithKeyFrame, entries, bytes };
    const gone = this.#before;
    this.#before = old;
    for (const reader of this.#readers) {
      if (reader.group === undefined) {
        if (startsWithKeyFrame) this.#move(reader, 0);
      } else if (reader.group === old && reader.next >= from) this.#move(reader, reader.next - from);
      else if (reader.group === gone) this.#skip(reader);
    }
  }

  #move(reader: Reader, next: number): void {
    reader.group = this.#newest;
    reader.next = next;
  }

  #skip(reader: Reader): void {
    this.#skippedGroups++;
    reader.next = 0;
    reader.group = this.#newest.startsWithKeyFrame ? this.#newest : undefined;
  }

  #feedAll(): void {
    for (const reader of this.#readers) if (!reader.waiting) this.#feed(reader);
  }

  #feed(reader: Reader): void {
    for (;;) {
      const group = reader.group;
      if (group === undefined) return;
      const entry = group.entries[reader.next];
      if (entry === undefined) {
        if (group === this.#newest) return;
        this.#move(reader, 0);
        continue;
      }
      const { track, bytes } = entry;
      const sent = entry.isRtcp
        ? reader.session.sendRtcp(track, bytes)
        : reader.session.sendRtp(track, bytes);
      if (!sent) {
        reader.waiting = true;
        reader.session.whenReady(() => {
          reader.waiting = false;
          if (this.#readers.has(reader)) this.#feed(reader);
        });
        return;
      }
      reader.next++;
    }
  }
}

function heldBytesOf({ bytes, entries }: Group): number {
  return bytes + entries.length * (HELD_PACKET_BYTES - PACKET_COST_BYTES);
}

function costOf({ bytes }: Entry): number {
  return bytes.length + PACKET_COST_BYTES;
}
