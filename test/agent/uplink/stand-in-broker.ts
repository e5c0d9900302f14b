/** A gateway's broker that keeps what it gets, and misbehaves as it is told. */
import { createServer, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { Aedes } from "aedes";
import { decodeFrames, type Frame } from "../../../protocol/frame.ts";
import { isEnvelope, openSync, readEnvelope } from "../../../protocol/publish-envelope.ts";
import { type DrainedMessage, parseTopic, type StatusMessage } from "../../../protocol/topics.ts";

export class StandInBroker {
  readonly frames: Frame[] = [];
  readonly drained: string[] = [];
  readonly statuses: StatusMessage[] = [];
  connections = 0;
  /** What it says to those that begin to listen to their control topic; an older gateway says nothing. */
  hello: unknown;
  /** Publishes that came compressed. */
  envelopes = 0;
  /** Bytes of frames that each client brought, the first one's first, also those that were not taken. */
  readonly broughtBytes: number[] = [];
  /** Decides over one publish of frames: PUBACK, silence, a cut connection or `busy`. */
  onFrames: (frames: Frame[]) => "ack" | "withhold" | "cut" | "busy" = () => "ack";
  /** Holds a PUBACK back for so long. */
  ackDelayMs = 0;
  /** SUBSCRIBE packets that it leaves without an answer; it answers all else. */
  ignoredSubscribes = 0;
  /** Holds all PUBACKs back until it resolves. */
  ackAfter: Promise<void> | undefined;
  onDrained: (epochs: readonly string[]) => void = () => {};
  readonly #sockets = new Set<Socket>();
  #wake = (): void => {};

  async start(t: TestContext): Promise<number> {
    const broker = await Aedes.createBroker();
    // As the protocol has it: behind a publish that was not taken, nothing of that connection is.
    const refused = new WeakSet<object>();
    const clients: unknown[] = [];
    broker.authorizePublish = (client, packet, done) => {
      const kind = parseTopic(packet.topic)?.kind;
      const payload = packet.payload as Buffer;
      if (kind === "frames") {
        if (!clients.includes(client)) clients.push(client);
        const at = clients.indexOf(client);
        this.broughtBytes[at] = (this.broughtBytes[at] ?? 0) + payload.length;
      }
      if (client !== null && refused.has(client)) return;
      if (kind === "status") this.statuses.push(JSON.parse(payload.toString()) as StatusMessage);
      if (kind === "drained") {
        const { epochs } = JSON.parse(payload.toString()) as DrainedMessage;
        this.drained.push(...epochs);
        this.onDrained(epochs);
      }
      if (kind === "frames") {
        const sealed = isEnvelope(payload);
        if (sealed) this.envelopes++;
        const frames = decodeFrames(sealed ? openSync(readEnvelope(payload)) : payload);
        const verdict = this.onFrames(frames);
        if (verdict !== "ack") refused.add(client!);
        // After the acknowledgements before it have left: a gateway that always loses those gets nowhere.
        if (verdict === "cut") setImmediate(() => client!.conn.destroy());
        if (verdict === "cut" || verdict === "withhold") return;
        if (verdict === "busy") {
          const busy = JSON.stringify({ type: "busy", reason: "full", retryAfterMs: 100 });
          broker.publish(
            {
              cmd: "publish",
              topic: `headwater/v1/pi-1/control`,
              payload: busy,
              qos: 0,
              retain: false,
              dup: false,
            },
            () => {},
          );
          return;
        }
        this.frames.push(...frames);
        this.#wake();
        if (this.ackAfter !== undefined) {
          void this.ackAfter.then(() => done(null));
          return;
        }
        if (this.ackDelayMs > 0) {
          setTimeout(() => done(null), this.ackDelayMs);
          return;
        }
      }
      done(null);
      this.#wake();
    };
    broker.authorizeSubscribe = (_client, subscription, done) => {
      if (this.ignoredSubscribes > 0) this.ignoredSubscribes--;
      else done(null, subscription);
    };
    broker.on("subscribe", ([subscription], client) => {
      if (this.hello === undefined) return;
      const packet = {
        cmd: "publish",
        topic: subscription!.topic,
        payload: JSON.stringify(this.hello),
      } as const;
      client.publish({ ...packet, qos: 0, retain: false, dup: false }, () => {});
    });
    const server = createServer((socket) => {
      this.connections++;
      this.#sockets.add(socket);
      broker.handle(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    t.after(async () => {
      server.close();
      for (const socket of this.#sockets) socket.destroy();
      await new Promise<void>((resolve) => broker.close(resolve));
    });
    return (server.address() as { port: number }).port;
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Of frames that came twice, the first. */
  get unique(): Frame[] {
    const seen = new Set<string>();
    return this.frames.filter((frame) => {
      const name = `${frame.epoch}/${frame.sequence}`;
      return !seen.has(name) && seen.add(name);
    });
  }
}
