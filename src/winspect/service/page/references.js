// Good samples of the class: shown, added, removed.

import { askJson, sendPictures, sentName } from "./api.js";
import { byId, copyOf, show, tell, tellRefused } from "./dom.js";
import { acceptDrops, connectChooser, thumbnail } from "./files.js";
import { recipe } from "./recipe.js";
import { fillTiny } from "./strip.js";
import { count } from "./words.js";

const NONE =
  "None yet: pictures are judged zero-shot, by words alone. One to four good samples make scores and maps sharper.";
const NEEDED =
  "None yet, and this recipe compares with good samples: nothing is judged before it has some. One is enough to begin.";
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
    byId("references-clear").addEventListener("click", () => this.change(() => this.remove()));
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

  /** Remove one reference, by its hash; without one all of them. */
  remove(sha256) {
    const only = sha256 ? `&sha256=${sha256}` : "";
    const path = `v1/references?class=${encodeURIComponent(this.category())}${only}`;
    return askJson(path, { method: "DELETE", onWait: this.onWait });
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
    byId("references-text").textContent = this.shots ? SOME : recipe.zeroShot ? NONE : NEEDED;
    show(byId("references-clear"), this.shots > 0);
    byId("references-list").replaceChildren(
      ...this.stored.map((reference) => {
        const entry = copyOf("reference-template");
        entry.title = reference.name;
        const tiny = entry.querySelector(".tiny");
        fillTiny(tiny, null, reference.name);
        const file = this.files.get(identity(reference.name, reference.size));
        if (file) thumbnail(file).then((canvas) => fillTiny(tiny, canvas, reference.name));
        const button = entry.querySelector("button");
        button.setAttribute("aria-label", `Remove ${reference.name}`);
        button.addEventListener("click", () => this.change(() => this.remove(reference.sha256)));
        return entry;
      }),
    );
  }
}
