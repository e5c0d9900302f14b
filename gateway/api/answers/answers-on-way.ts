/**
 * Answers whose bytes may still be read by the kernel, TLS or node:http2. Their memory goes back once they have left, or
 * their connection has ended.
 */
import { randomBytes } from "node:crypto";
import type { EventEmitter } from "node:events";
import type { ServerHttp2Stream } from "node:http2";
import { type Exchange, isGone } from "../exchange.ts";
import { giveAnswer } from "./answer-memory.ts";

/** By connection, on which one listener is enough. What is left there when it has closed is read by nobody. */
const onWay = new WeakMap<EventEmitter, Set<Buffer>>();

/** For an answer that is about to be sent; one that nobody is there for is not. */
export function giveBehindReply({ request, reply }: Exchange, answer: Buffer): void {
  const { socket } = request;
  if (isGone(reply) || socket.destroyed) giveAnswer(answer);
  else if ("stream" in reply) giveBehindStream(reply.stream, answer);
  else {
    keep(socket, answer);
    // By then the kernel has all of it; of a reply that waits for another's, its connection tells.
    reply.once("close", () => letGo(socket, answer));
  }
}

/**
 * node:http2 tells nobody when the last slice of a body has left, and destroys a stream before that. Once
 * it is closed no slice is added; a PING then goes out behind those that are under way, and its answer
 * (RFC 9113 §6.7) shows that they have left. What it says cannot be guessed, so nobody answers too early.
 */
export function giveBehindStream(stream: ServerHttp2Stream, answer: Buffer): void {
  const { session } = stream;
  if (session === undefined) return;
  keep(session, answer);
  stream.once("close", () => {
    if (session.destroyed) return;
    const mark = randomBytes(8);
    session.ping(mark, (error, _tookMs, heard) => {
      if (error === null && mark.equals(heard)) letGo(session, answer);
    });
  });
}

function keep(connection: EventEmitter, answer: Buffer): void {
  let answers = onWay.get(connection);
  if (answers === undefined) {
    const all = new Set<Buffer>();
    answers = all;
    onWay.set(connection, all);
    connection.once("close", () => {
      onWay.delete(connection);
      for (const left of all) giveAnswer(left);
    });
  }
  answers.add(answer);
}

function letGo(connection: EventEmitter, answer: Buffer): void {
  if (onWay.get(connection)?.delete(answer)) giveAnswer(answer);
}
