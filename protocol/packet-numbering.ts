/**
 * Whether an MQTT client that has just connected numbers its packets anew, as a sensor does that lost
 * its power: then nothing that it sends was sent before, even where packet id and payload are those
 * of an earlier publish. A sensor that wakes, says "21.5" as its packet 1 and sleeps without a
 * DISCONNECT says something new each time.
 *
 * Of publishes that are sent again, those of clients that set DUP ([MQTT-3.3.1-1]) are told by it.
 * mqtt.js does not set it, but begins at a random id, so low ids without DUP are a new beginning,
 * unless the id before is remembered too: then the numbering has only come round.
 */

/** Where numbering may be seen to begin: some clients spend the first ids on SUBSCRIBE. */
const FIRST_PACKET_IDS = 4;
const MAX_PACKET_ID = 65_535;

/**
 * @param packetId of the first publish of a connection
 * @param remembers whether a publish with this id is remembered of the client
 */
export function numbersAnew(
  packetId: number,
  dup: boolean,
  remembers: (packetId: number) => boolean,
): boolean {
  if (dup || packetId > FIRST_PACKET_IDS) return false;
  return !remembers(packetId === 1 ? MAX_PACKET_ID : packetId - 1);
}
