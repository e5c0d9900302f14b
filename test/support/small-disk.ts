/**
 * A disk of its own for a test: an ext4 file system in a file, mounted by loop. It can be full, and
 * its power can be cut: what was not synced by then is gone for good.
 *
 * The cut is ext4's shutdown call without a flush of its journal (EXT4_IOC_SHUTDOWN, flag NOLOGFLUSH):
 * from that moment nothing reaches the disk any more, and the next mount replays the journal as after
 * a real power cut. What the call cannot show is a drive that lies about its own cache.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, statfs, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { removeFolder } from "./remove-folder.ts";

const run = promisify(execFile);

/** `_IOR('X', 125, __u32)` of Linux's fs/ext4/ext4.h. */
const SHUTDOWN = 0x8004587d;
const NO_LOG_FLUSH = 2;
/**
 * perl-base is on every Debian; Node has no ioctl. A process to be stopped is stopped when each of its
 * threads is (T), or waits within the kernel for the disk (D).
 */
const CUT = `my ($path, $pid) = @ARGV; open(my $disk, "<", $path) or die "$!";
if ($pid and kill("STOP", $pid)) { RUNNING: while (1) { for (glob("/proc/$pid/task/*/stat")) {
  open(my $stat, "<", $_) or next; my $line = <$stat> // next; next RUNNING unless $line =~ /\\) [TDZX] /; } last; } }
my $flag = pack("L", ${NO_LOG_FLUSH}); defined(ioctl($disk, ${SHUTDOWN}, $flag)) or die "$!";`;

export class SmallDisk {
  /** Where it is mounted. */
  readonly path: string;
  readonly #folder: string;
  #image: string;
  #copies = 0;
  #mounted = false;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#image = join(folder, "disk.img");
    this.path = join(folder, "disk");
  }

  /** A string says why this machine cannot have one. */
  static async make(bytes: number): Promise<SmallDisk | string> {
    const disk = new SmallDisk(await mkdtemp(join(tmpdir(), "headwater-disk-")));
    try {
      await mkdir(disk.path);
      await writeFile(disk.#image, "");
      await truncate(disk.#image, bytes);
      await run("mkfs.ext4", ["-q", "-F", "-m", "0", disk.#image]);
      await disk.mount();
      return disk;
    } catch (error) {
      await disk.remove();
      return `no file system can be mounted by loop here: ${(error as Error).message.split("\n")[0]}`;
    }
  }

  async mount(): Promise<void> {
    await this.#leaveHeldImage();
    await run("mount", ["-o", "loop", this.#image, this.path]);
    this.#mounted = true;
  }

  /**
   * A process that made mounts of its own meanwhile, as browsers and package tests do, may still hold the
   * file system whose power was cut; mounting the same image would give that dead one again.
   */
  async #leaveHeldImage(): Promise<void> {
    const { stdout } = await run("losetup", ["-j", this.#image]);
    if (stdout.trim() === "") return;
    const copy = join(this.#folder, `disk-${++this.#copies}.img`);
    await run("cp", ["--sparse=always", this.#image, copy]);
    await rm(this.#image);
    this.#image = copy;
  }

  /**
   * Nothing that is not on disk by now gets there any more. Mount again to see what is left.
   *
   * Writes and syncs fail from now on, except that an fdatasync which waits for ext4's journal at this
   * very moment may return as if all were well: jbd2 (fs/jbd2/journal.c, jbd2_complete_transaction)
   * takes a transaction for committed that was aborted while nobody waited for it. At a real power cut no
   * program lives to hear of it. So whoever counts what a program says of its syncs gives the program here.
   *
   * @param pid of a process that is stopped right before the cut; what is left for the caller is to kill it
   */
  async cutPower(pid?: number): Promise<void> {
    await run("perl", ["-e", CUT, this.path, String(pid ?? 0)]);
  }

  /** Takes all room that is left. @returns a function that gives it back */
  async fill(): Promise<() => Promise<void>> {
    const balloon = join(this.path, "balloon");
    // What is smaller than a file's blocks of the moment still fits behind it.
    for (const leftBytes of [4 << 20, 64 << 10, 4 << 10, 0]) {
      const { bavail, bsize } = await statfs(this.path);
      const bytes = Math.max(0, bavail * bsize - leftBytes);
      await writeFile(balloon, Buffer.alloc(bytes), { flag: "a" }).catch(() => undefined);
    }
    return () => rm(balloon);
  }

  /** Whoever had files open here must have closed them. */
  async unmount(): Promise<void> {
    if (!this.#mounted) return;
    await run("umount", [this.path]);
    this.#mounted = false;
  }

  async remove(): Promise<void> {
    if (this.#mounted) await run("umount", ["-l", this.path]).catch(() => undefined);
    await removeFolder(this.#folder);
  }
}
