/** A file that says which process holds something, so that two set-ups or demos do not meet in it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/**
 * @returns {{holder: number} | {release: () => void}} The holder is a running process of ours.
 * A file that a killed process left behind does not count.
 */
export function claim(file) {
  mkdirSync(dirname(file), { recursive: true });
  for (;;) {
    try {
      writeFileSync(file, `${process.pid}\n`, { flag: "wx" });
      const release = () => rmSync(file, { force: true });
      process.on("exit", release);
      return {
        release: () => {
          process.off("exit", release);
          release();
        },
      };
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const holder = Number(readOrEmpty(file));
    if (Number.isInteger(holder) && holder > 0 && holder !== process.pid && isOurs(holder)) return { holder };
    rmSync(file, { force: true });
  }
}

/** A number that another program got meanwhile is not ours. */
function isOurs(pid) {
  return readOrEmpty(`/proc/${pid}/cmdline`).includes("setup/");
}

function readOrEmpty(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
