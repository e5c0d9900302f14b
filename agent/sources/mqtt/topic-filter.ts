/** MQTT topic filters, MQTT 3.1.1 §4.7. */

export function topicMatches(filter: string, topic: string): boolean {
  // [MQTT-4.7.2-1] A leading wildcard does not match topics that begin with $.
  if (topic.startsWith("$") && /^[#+]/.test(filter)) return false;
  const wanted = filter.split("/");
  const levels = topic.split("/");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === "#") return true;
    if (i >= levels.length) return false;
    if (wanted[i] !== "+" && wanted[i] !== levels[i]) return false;
  }
  return wanted.length === levels.length;
}
