/** Whose camera it is: it holds at once, and is in the file `device` before the next unit is on disk. */
import type { FragmentFiles } from "./fragment-files.ts";

export class CameraOwner {
  readonly #files: FragmentFiles;
  readonly #inTurn: (task: () => Promise<void>) => Promise<void>;
  #device: string | undefined;
  #isOnDisk = false;

  /** @param inTurn before what is stored later */
  constructor(files: FragmentFiles, inTurn: (task: () => Promise<void>) => Promise<void>) {
    this.#files = files;
    this.#inTurn = inTurn;
  }

  /** Undefined until a device was named. */
  get device(): string | undefined {
    return this.#device;
  }

  /** What the file says, unless somebody was named while the folder was made. */
  async read(): Promise<void> {
    const device = await this.#files.device();
    this.#device ??= device;
    this.#isOnDisk = device !== undefined && device === this.#device;
  }

  /** Resolves when it is on disk. Where the disk refuses it the next call tries again. */
  async set(device: string): Promise<void> {
    if (device !== this.#device) this.#isOnDisk = false;
    this.#device = device;
    if (this.#isOnDisk) return;
    await this.#inTurn(async () => {
      // Somebody else may have been named since.
      if (this.#isOnDisk || device !== this.#device) return;
      await this.#files.writeDevice(device);
      this.#isOnDisk = device === this.#device;
    });
  }
}
