/**
 * Where a publish goes, by its destination: a plain reading to its stream, an agent's message to whoever reads those, and what
 * belongs nowhere aside.
 */
import type { AgentPublishes } from "./agent-publishes.ts";
import { KEPT_EXCESS_BYTES, MAX_PLAIN_BYTES, type PlainPublishes } from "./plain-publishes.ts";
import { type Answers, addressed, type Publish, payloadOf, type Session } from "./publish.ts";
import type { PublishDesk } from "./publish-desk.ts";

export interface PublishRoutesParts {
  readonly plain: PlainPublishes;
  readonly agents: AgentPublishes;
  readonly desk: PublishDesk;
}

export class PublishRoutes {
  readonly #parts: PublishRoutesParts;

  constructor(parts: PublishRoutesParts) {
    this.#parts = parts;
  }

  /** Whatever is stored of it is appended, or gathered for that, within the call, so order is kept. */
  take(session: Session, publish: Publish, answers: Answers): void {
    session.hasSpoken = true;
    if (session.withheld) return;
    try {
      this.#route(session, publish, answers);
    } catch (error) {
      this.#parts.desk.withhold(session, publish.destination.topic, error);
    }
  }

  #route(session: Session, publish: Publish, answers: Answers): void {
    const { plain, agents, desk } = this.#parts;
    const { destination } = publish;
    if (destination.kind === "stream") plain.take(session, publish, destination.stream, answers);
    else if (destination.kind === "agent")
      agents.take(session, publish, destination.device, destination.message, answers);
    else {
      const kept = publish.end - publish.from > MAX_PLAIN_BYTES ? KEPT_EXCESS_BYTES : undefined;
      const payload = payloadOf(publish).subarray(0, kept);
      desk.quarantine(addressed(session, publish, answers), payload, destination.reason);
    }
  }
}
