// The pictures of this visit, a thumbnail with its score each.

import { byId, copyOf, show } from "./dom.js";
import { VERDICTS, score } from "./words.js";

export class Strip {
  /** @param {(item: object) => void} onSelect told which picture is to be looked at */
  constructor(onSelect) {
    this.root = byId("strip");
    this.onSelect = onSelect;
    this.buttons = new Map();
    this.root.addEventListener("keydown", (event) => this.step(event));
  }

  add(item) {
    const entry = copyOf("thumb-template");
    const button = entry.querySelector("button");
    button.addEventListener("click", () => this.onSelect(item));
    this.buttons.set(item, button);
    this.root.append(entry);
    this.update(item);
    show(this.root, this.buttons.size > 1);
  }

  /** Show an item's thumbnail, or its name where there is none. */
  picture(item, canvas) {
    const tiny = this.buttons.get(item)?.querySelector(".tiny");
    if (tiny) fillTiny(tiny, canvas, item.name);
  }

  update(item) {
    const button = this.buttons.get(item);
    if (!button) return;
    const { row, error } = item.few;
    const value = row?.anomaly_score;
    const isJudged = !error && value != null;
    const text = isJudged ? score(value) : error ? "failed" : "…";
    button.querySelector(".label").textContent = text;
    button.dataset.verdict = error ? "failed" : row?.verdict ?? "";
    const told = isJudged ? `score ${text}` : error ? "could not be judged" : "waiting";
    button.setAttribute("aria-label", [item.name, told, VERDICTS[row?.verdict]].filter(Boolean).join(", "));
    button.title = item.name;
  }

  select(item) {
    for (const [other, button] of this.buttons) button.setAttribute("aria-current", String(other === item));
    const { offsetLeft, offsetWidth } = this.buttons.get(item);
    const { scrollLeft, clientWidth } = this.root;
    // Not scrollIntoView, which moves the whole page.
    this.root.scrollLeft = Math.min(offsetLeft, Math.max(scrollLeft, offsetLeft + offsetWidth - clientWidth));
  }

  /** Arrow keys go from picture to picture. */
  step(event) {
    const change = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const all = [...this.buttons.values()];
    const next = all[all.indexOf(document.activeElement) + change];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  clear() {
    this.buttons.clear();
    this.root.replaceChildren();
    show(this.root, false);
  }
}

/** Put a small picture into an element; a name where the browser cannot show it. */
export function fillTiny(element, canvas, name) {
  element.replaceChildren(canvas ?? name);
}
