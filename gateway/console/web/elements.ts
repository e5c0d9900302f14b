/**
 * Builds and updates the page. All text goes in as text, never as markup: the names of sensors, files
 * and errors come from strangers. What did not change is not touched, so nothing flickers.
 */

/** How a piece of text should strike the eye; the words must say it too. */
export type Tone = "good" | "warn" | "bad" | "quiet";

export interface ElementFacts {
  readonly class?: string;
  readonly text?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  facts: ElementFacts = {},
  ...children: readonly Node[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (facts.class !== undefined) made.className = facts.class;
  if (facts.text !== undefined) made.textContent = facts.text;
  for (const [name, value] of Object.entries(facts.attributes ?? {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function setTone(node: HTMLElement, tone: Tone | undefined): void {
  if (tone === undefined) delete node.dataset.tone;
  else if (node.dataset.tone !== tone) node.dataset.tone = tone;
}

/** An element of index.html. */
export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no #${id}`);
  return found as T;
}

/** Keeps one element for each key, in the order of `items`; makes new ones, removes the others. */
export class KeyedChildren<T, E extends { readonly root: HTMLElement }> {
  readonly #parent: HTMLElement;
  readonly #make: (item: T) => E;
  readonly #kept = new Map<string, E>();

  constructor(parent: HTMLElement, make: (item: T) => E) {
    this.#parent = parent;
    this.#make = make;
  }

  update(items: readonly T[], keyOf: (item: T) => string, update: (made: E, item: T) => void): void {
    const seen = new Set<string>();
    let before: Element | null = this.#parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      if (seen.has(key)) continue;
      seen.add(key);
      let made = this.#kept.get(key);
      if (made === undefined) {
        made = this.#make(item);
        this.#kept.set(key, made);
      }
      if (made.root === before) before = before.nextElementSibling;
      else this.#parent.insertBefore(made.root, before);
      update(made, item);
    }
    for (const [key, made] of this.#kept) {
      if (seen.has(key)) continue;
      made.root.remove();
      this.#kept.delete(key);
    }
  }
}

/** Offers `values`, hides when there are none, and keeps the choice while it is still among them. @returns the choice */
export function updateSelect(
  select: HTMLSelectElement,
  values: readonly string[],
  preferred?: string,
): string | undefined {
  const shown = Array.from(select.options, (option) => option.value);
  if (shown.length !== values.length || shown.some((value, i) => value !== values[i])) {
    const chosen = values.includes(select.value) ? select.value : (preferred ?? values[0]);
    select.replaceChildren(
      ...values.map((value) => element("option", { text: value, attributes: { value } })),
    );
    if (chosen !== undefined) select.value = chosen;
  }
  const label = select.closest("label");
  if (label !== null) label.hidden = values.length === 0;
  return values.length === 0 ? undefined : select.value;
}
