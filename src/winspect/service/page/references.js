// Good samples of the class: shown, added, removed.

import { askJson, form, sendPictures, sentName } from "./api.js";
import { byId, copyOf, show, tell, tellRefused } from "./dom.js";
import { acceptDrops, connectChooser, thumbnail } from "./files.js";
import { fillTiny } from "./strip.js";
import { count } from "./words.js";

const NONE =
  "None yet: pictures are judged zero-shot, by words alone. One to four good samples make scores and maps sharper.";
const SOME = "Pictures are compared with these.";

// Files by name and size, so that what this page has sent can be shown; the service tells names and sizes alone.
const identity = (name, size) => `${size} ${name}`;

export class References {
  /**
   * @param {() => string} category the class at this time
   * @param {() => void} onChange told when the class has other references
   */
  constructor(category, onChange) {
    [this.category, this.onChange] = [category, onChange];
    this.stored = []; // {name, sha256, size} of the class
    this.files = new Map();
    connectChooser(byId("references-add"), byId("references-files"), (files) => this.add(files));
    acceptDrops(byId("references"), (files) => this.add(files));
    byId("references-clear").addEventListener("click", () => this.change(() => this.replace([])));
  }

  get shots() {
    return this.stored.length;
  }

  /** Show nothing: the class is none that the service has. */
  forget() {
    this.stored = [];
    this.draw();
  }

  /** Whether a file is one of the references. */
  has(file) {
    return this.stored.some(({ name, size }) => name === sentName(file) && size === file.size);
  }

  /** Ask what the service has of the class; throws what the service says no with. */
  async refresh() {
    const category = this.category();
    const answer = await askJson(`v1/references?class=${encodeURIComponent(category)}`);
    if (category !== this.category()) return;
    this.stored = answer.references;
    this.draw();
  }

  add(files) {
    return this.change(async () => {
      for (const file of files) this.files.set(identity(sentName(file), file.size), file);
      const fields = { class: this.category(), add: true };
      const onProgress = (done, of) => this.note(`Showing the model ${done} of ${of}…`);
      this.note(`Showing the model ${count(files.length, "sample")}…`);
      const refused = [];
      await sendPictures("v1/references", fields, files, { refused, onProgress, onWait: this.onWait });
      tellRefused(byId("references-error"), refused);
    });
  }

  /** Put files in place of all references. The service knows no removal of a single one. */
  async replace(files) {
    const category = this.category();
    if (!files.length) return askJson(`v1/references?class=${encodeURIComponent(category)}`, { method: "DELETE" });
    const body = form({ class: category, add: false }, files);
    return askJson("v1/references", { method: "POST", body, onWait: this.onWait });
  }

  onWait = (seconds) => this.note(`The service is busy; trying again in ${Math.ceil(seconds)} s`);

  note(text) {
    byId("references-note").textContent = text;
  }

  /** Run a change, show what came of it, and tell. */
  async change(action) {
    const buttons = byId("references").querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    tell(byId("references-error"), "");
    try {
      await action();
      await this.refresh();
      this.onChange();
    } catch (error) {
      tell(byId("references-error"), error.message);
    } finally {
      this.note("");
      for (const button of buttons) button.disabled = false;
    }
  }

  draw() {
    const badge = byId("references-count");
    badge.textContent = count(this.shots, "good sample");
    show(badge, this.shots > 0);
    byId("references-text").textContent = this.shots ? SOME : NONE;
    show(byId("references-clear"), this.shots > 0);
    const files = this.stored.map(({ name, size }) => this.files.get(identity(name, size)));
    const mayRemove = files.every(Boolean); // the others are sent again
    byId("references-list").replaceChildren(
      ...this.stored.map((reference, index) => {
        const entry = copyOf("reference-template");
        entry.title = reference.name;
        const tiny = entry.querySelector(".tiny");
        fillTiny(tiny, null, reference.name);
        if (files[index]) thumbnail(files[index]).then((canvas) => fillTiny(tiny, canvas, reference.name));
        const button = entry.querySelector("button");
        show(button, mayRemove);
        button.setAttribute("aria-label", `Remove ${reference.name}`);
        const others = files.filter((_, other) => other !== index);
        button.addEventListener("click", () => this.change(() => this.replace(others)));
        return entry;
      }),
    );
  }
}
