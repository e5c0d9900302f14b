/** The form that asks for an access key when there is no session. */
import { byId, setText } from "./elements.ts";
import { SignedOutError, signIn } from "./gateway-client.ts";

const LINK_EXPIRED = "#link-expired";

export class SignInForm {
  readonly #section = byId("sign-in");
  readonly #id = byId<HTMLInputElement>("access-key-id");
  readonly #secret = byId<HTMLInputElement>("secret-access-key");
  readonly #error = byId("sign-in-error");

  constructor(onSignedIn: () => void) {
    byId<HTMLFormElement>("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(onSignedIn).catch(() => {});
    });
  }

  get isShown(): boolean {
    return !this.#section.hidden;
  }

  show(): void {
    if (this.isShown) return;
    this.#section.hidden = false;
    if (location.hash === LINK_EXPIRED) {
      setText(this.#error, "This sign-in link was used before or is too old. Sign in with an access key.");
      history.replaceState(null, "", "/");
    }
    this.#id.focus();
  }

  hide(): void {
    if (!this.isShown) return;
    this.#section.hidden = true;
    this.#secret.value = "";
    setText(this.#error, "");
  }

  async #send(onSignedIn: () => void): Promise<void> {
    setText(this.#error, "");
    try {
      await signIn(this.#id.value.trim(), this.#secret.value.trim());
      this.hide();
      onSignedIn();
    } catch (error) {
      const refused = "The gateway does not know this key id with this secret.";
      setText(this.#error, error instanceof SignedOutError ? refused : `Signing in failed: ${reason(error)}`);
      this.#secret.select();
    }
  }
}

function reason(error: unknown): string {
  return error instanceof TypeError
    ? "the gateway cannot be reached"
    : error instanceof Error
      ? error.message
      : String(error);
}
