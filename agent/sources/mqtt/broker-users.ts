/** Who may publish to the agent's own broker. */
import { createHash, timingSafeEqual } from "node:crypto";

/** Takes as long for a wrong name as for a wrong password. */
export function isUser(
  users: readonly { username: string; password: string }[],
  username: string,
  password: Uint8Array,
): boolean {
  const digest = (value: string | Uint8Array): Buffer => createHash("sha256").update(value).digest();
  const given = [digest(username), digest(password)] as const;
  let found = false;
  for (const user of users) {
    const sameName = timingSafeEqual(digest(user.username), given[0]);
    const samePassword = timingSafeEqual(digest(user.password), given[1]);
    if (sameName && samePassword) found = true;
  }
  return found;
}
