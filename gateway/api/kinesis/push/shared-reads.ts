/**
 * Reads of shards that are under way, so that subscriptions which come to the tip at the same moment share
 * one. What is kept of a shard stays for as long as somebody subscribes to it: a Map to which each read adds
 * itself and which it leaves again gets a new table from V8 all the time, and as the Map is old, so is the
 * table, which only a collection of the whole heap finds to be free.
 */
import type { Offset, ReadResult } from "../../../streams/streams.ts";

type Read = (from: Offset) => Promise<ReadResult>;

export class SharedReads {
  readonly #shards = new Map<string, ShardReads>();

  /** How many shards somebody subscribes to. */
  get shards(): number {
    return this.#shards.size;
  }

  /**
   * @param read of the shard; the one that came first serves all. Who released a read has done with it, and releases it
   *   once. `leave` is to be called once.
   */
  join(streamId: string, shardIndex: number, read: Read): { readonly read: Read; leave(): void } {
    const key = `${shardIndex} ${streamId}`;
    let shard = this.#shards.get(key);
    if (shard === undefined) {
      shard = new ShardReads(read);
      this.#shards.set(key, shard);
    }
    const joined = shard;
    joined.members++;
    return {
      read: (from) => joined.read(from),
      leave: () => {
        joined.members--;
        if (joined.members === 0) this.#shards.delete(key);
      },
    };
  }
}

interface Running {
  readonly from: Offset;
  readonly result: Promise<ReadResult>;
  /** Who waits for it, or looks at it. */
  users: number;
}

class ShardReads {
  readonly #read: Read;
  /** Of different places, so few that they are looked through. */
  readonly #running: Running[] = [];
  members = 0;

  constructor(read: Read) {
    this.#read = read;
  }

  read(from: Offset): Promise<ReadResult> {
    const known = this.#running.find((running) => running.from === from);
    if (known !== undefined) {
      known.users++;
      return known.result;
    }
    const running: Running = {
      from,
      result: this.#read(from).then((result) => shared(result, running)),
      users: 1,
    };
    this.#running.push(running);
    const done = (): void => void this.#running.splice(this.#running.indexOf(running), 1);
    running.result.then(done, done);
    return running.result;
  }
}

/** Released when the last of those who got it has done so: nobody can come to it any more once it is there. */
function shared(result: ReadResult, running: Running): ReadResult {
  if (result.release === undefined) return result;
  const release = (): void => {
    running.users--;
    if (running.users === 0) result.release!();
  };
  return { ...result, release };
}
