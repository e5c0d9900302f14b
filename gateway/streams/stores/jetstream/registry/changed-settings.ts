/** A change of what a stream is, judged by what it is when the change is written: another gateway may have changed it a moment ago. */
import { changed, type StreamChange, type StreamSettings } from "../../../streams.ts";
import { checkSpec } from "../../check-spec.ts";
import type { JetStreamStream } from "../log/jetstream-stream.ts";
import type { StreamRegistry } from "./stream-registry.ts";

/**
 * @param settings as this gateway's list of streams says
 * @throws StreamNotFoundError, LogFullError, HeadwaterError BAD_STREAM, and what the change itself throws: nothing of it holds then
 */
export async function changeSettings(
  registry: StreamRegistry,
  stream: JetStreamStream,
  change: StreamChange,
  settings: () => StreamSettings,
): Promise<void> {
  await registry.list.refresh();
  const { tags, retentionHours, ...others } = change;
  const before = settings();
  const hoursAfter = (hours: number): number =>
    retentionHours === undefined ? hours : changed(hours, retentionHours);
  const hours = hoursAfter(before.retentionHours);
  checkSpec({ ...before, ...others, retentionHours: hours });
  // After a crash between the two, or if one takes long, the cluster is set again to what the list says. So a longer time stands there
  // first, as what the cluster has taken once is gone; and of a shorter one nothing is said where the cluster refuses it.
  if (hours < before.retentionHours) await registry.retention.set(stream, hours);
  await registry.list.updateStream(stream.name, stream.streamId, (record) => ({
    ...record,
    ...others,
    retentionHours: hoursAfter(record.retentionHours),
    ...(tags !== undefined && { tags: changed(record.tags, tags) }),
  }));
  if (hours > before.retentionHours) await registry.retention.set(stream, hours);
  registry.tellAll();
}
