// A threshold with a guarantee, from a folder of good pictures.

import { ask, askJson, form, sendPictures } from "./api.js";
import { byId, show, tell, tellRefused } from "./dom.js";
import { acceptDrops, connectChooser, looksLikePicture } from "./files.js";
import { count, day, neededPictures, percent, rateOf, share } from "./words.js";

const POLL_MS = 700;
const BADGES = { none: "", stale: "out of date", running: "calibrating", failed: "failed" };
const NONE =
  "A score is not a decision. Good pictures of the same line give a threshold with a guarantee on false alarms.";

export class Calibration {
  /**
   * @param {() => string} category the class at this time
   * @param {() => void} onChange told when the class has another threshold
   */
  constructor(category, onChange) {
    [this.category, this.onChange] = [category, onChange];
    this.state = { state: "none" };
    this.stored = 0; // good pictures of the class at the service
    this.chosen = [];
    this.uploading = null;
    connectChooser(byId("calibration-folder"), byId("calibration-files"), (files) => this.choose(files));
    acceptDrops(byId("calibration"), (files) => this.choose(files));
    byId("rate").addEventListener("input", () => this.draw());
    byId("calibration-start").addEventListener("click", () => this.start());
    byId("calibration-stop").addEventListener("click", () => this.stop());
    byId("calibration-delete").addEventListener("click", () => this.remove(this.url));
    byId("calibration-forget").addEventListener("click", () => this.remove(this.at("/pictures")));
    byId("calibration-download").addEventListener("click", () => this.download());
  }

  get rate() {
    const input = byId("rate");
    return input.validity.valid ? rateOf(input.valueAsNumber) : null;
  }

  at(place) {
    return `v1/calibrations${place}?class=${encodeURIComponent(this.category())}`;
  }

  get url() {
    return this.at("");
  }

  /** Another class follows: what was chosen or under way for this one is left. */
  leave() {
    this.uploading?.abort();
    this.chosen = [];
    tell(byId("calibration-error"), "");
    byId("calibration-note").textContent = "";
  }

  /** Show nothing: the class is none that the service has. */
  forget() {
    [this.state, this.stored] = [{ state: "none" }, 0];
    this.draw();
  }

  /** Ask what the service has of the class, and go on asking while it calibrates. */
  async refresh() {
    const category = this.category();
    const [state, { classes }] = await Promise.all([askJson(this.url), askJson("v1/classes")]);
    if (category !== this.category()) return;
    this.state = state;
    this.stored = classes.find((known) => known.class === state.class)?.good_pictures ?? 0;
    this.draw();
    if (state.state === "running" && !this.polling) this.poll();
  }

  async poll() {
    const category = this.category();
    this.polling = true;
    try {
      while (this.state.state === "running" && category === this.category()) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        const state = await askJson(this.url);
        if (category === this.category()) this.state = state;
        this.draw();
      }
      if (this.state.state === "ready") this.onChange();
    } catch (error) {
      tell(byId("calibration-error"), error.message);
    } finally {
      this.polling = false;
    }
    if (category !== this.category()) await this.refresh();
  }

  choose(files) {
    this.chosen = files.filter(looksLikePicture);
    const left = files.length - this.chosen.length;
    tell(byId("calibration-error"), this.chosen.length ? "" : "There are no pictures in this folder.");
    const others = left === 1 ? "1 file that is no picture is" : `${left} files that are no pictures are`;
    byId("calibration-note").textContent = left ? `${others} left out.` : "";
    this.draw();
  }

  async start() {
    const stop = (this.uploading = new AbortController());
    const fields = { class: this.category() };
    const refused = [];
    let failure = null;
    tell(byId("calibration-error"), "");
    this.draw();
    try {
      await this.send(fields, refused, stop.signal);
      const body = form({ ...fields, max_false_alarms: this.rate });
      await askJson("v1/calibrations", { method: "POST", body, signal: stop.signal });
    } catch (error) {
      if (!stop.signal.aborted) failure = error;
    }
    if (this.uploading === stop) this.uploading = null;
    if (fields.class !== this.category()) return;
    tellRefused(byId("calibration-error"), refused, failure);
    await this.tryRefresh();
  }

  /** Send what was chosen; pictures that are not taken are put into `refused`. */
  async send(fields, refused, signal) {
    const note = byId("calibration-note");
    const onProgress = (done, of) => {
      this.progress(done, of);
      note.textContent = `Sending: ${done} of ${of}`;
    };
    const onWait = (seconds) => (note.textContent = `The service is busy; trying again in ${Math.ceil(seconds)} s`);
    await sendPictures("v1/calibrations/pictures", fields, this.chosen, { refused, signal, onProgress, onWait });
    this.chosen = [];
    note.textContent = "";
  }

  async stop() {
    this.uploading?.abort();
    byId("calibration-note").textContent = "Stopped.";
    if (this.state.state === "running") await this.remove(this.url);
    else this.draw();
  }

  /** The file that `winspect predict --calibration` reads. */
  async download() {
    try {
      const response = await ask(this.at("/document"));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await response.blob());
      link.download = `${this.state.class} calibration.json`;
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      tell(byId("calibration-error"), error.message);
    }
  }

  async remove(url) {
    tell(byId("calibration-error"), "");
    try {
      await askJson(url, { method: "DELETE" });
    } catch (error) {
      tell(byId("calibration-error"), error.message);
    }
    await this.tryRefresh();
    this.onChange();
  }

  async tryRefresh() {
    try {
      await this.refresh();
    } catch (error) {
      tell(byId("calibration-error"), error.message);
    }
  }

  progress(done, of) {
    byId("calibration-progress").max = Math.max(1, of);
    byId("calibration-progress").value = done;
  }

  draw() {
    const { state } = this.state;
    const isRunning = state === "running";
    const isBusy = isRunning || Boolean(this.uploading);
    const badge = byId("calibration-badge");
    badge.textContent = state === "ready" ? this.state.threshold.toFixed(3) : BADGES[state];
    badge.className = `badge ${state === "ready" ? "good" : "wait"}`;
    show(badge, state !== "none");
    byId("calibration-text").textContent = this.inWords();
    byId("calibration-needed").textContent = isBusy ? "" : this.neededInWords();
    show(byId("calibration-folder"), !isBusy);
    const isAnother = this.chosen.length > 0 || state !== "ready" || this.state.max_false_alarms !== this.rate;
    show(byId("calibration-start"), !isBusy && this.available > 0 && isAnother);
    byId("calibration-start").disabled = this.rate === null || this.available < neededPictures(this.rate);
    show(byId("calibration-stop"), isBusy);
    show(byId("calibration-delete"), !isBusy && ["ready", "stale", "failed"].includes(state));
    show(byId("calibration-download"), !isBusy && state === "ready");
    show(byId("calibration-forget"), !isBusy && this.stored > 0);
    show(byId("calibration-progress"), isBusy);
    if (isRunning) this.progress(this.state.done, this.state.total);
  }

  /** Good pictures there would be after sending what is chosen; copies are told by the service. */
  get available() {
    return this.stored + this.chosen.length;
  }

  inWords() {
    const { state, message, max_false_alarms: rate, threshold, pictures, date, done, total } = this.state;
    if (state === "running") return `Judging good pictures: ${done} of ${total}.`;
    if (state === "failed") return message;
    if (state === "none") return NONE;
    const isOne = share(rate).startsWith("1 ");
    const promise = `At most ${share(rate)} good pictures ${isOne ? "is" : "are"} flagged, on average.`;
    const source = [`from ${count(pictures, "good picture")}`, day(date)].filter(Boolean).join(", ");
    const made = `Threshold ${threshold.toFixed(3)}, ${source}.`;
    return state === "ready" ? `${promise} ${made}` : `Not used any more: ${message} (${made})`;
  }

  neededInWords() {
    if (this.rate === null) return "Need a share above 0 and at most 50 %.";
    const needed = neededPictures(this.rate);
    const parts = [];
    if (this.stored) parts.push(`${count(this.stored, "good picture")} stored`);
    if (this.chosen.length) parts.push(`${this.chosen.length} chosen`);
    const have = parts.length ? `${parts.join(", ")}. ` : "";
    if (this.available >= needed) return `${have}${percent(this.rate)} % needs at least ${needed} good pictures.`;
    const allowed = percent(Math.ceil(1e4 / (this.available + 1)) / 1e4);
    const allows = this.available ? ` ${this.available} are enough for ${allowed} %.` : "";
    return `${have}${percent(this.rate)} % needs at least ${needed} good pictures.${allows}`;
  }
}
