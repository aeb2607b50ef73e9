// Judging pictures: a queue, two requests at a time, what is looked at first.

import { ServiceError, askJson, form } from "./api.js";
import { readMap } from "./heat.js";
import { recipe } from "./recipe.js";

const NEEDED = "Not judged: this recipe compares with good samples. Add one or more of this class under References.";

const AT_A_TIME = 2;
const MAPS_KEPT = 24; // a map may have a million values

export class Judging {
  /** @param {(item: object) => void} onChange told whenever something of an item has changed */
  constructor(onChange) {
    this.onChange = onChange;
    this.queue = [];
    this.running = 0;
    this.withMaps = []; // items, the one looked at last at the end
  }

  /**
   * Judge an item, again if it was judged before; what was under way for it is dropped. The answers come into
   * `item.few`, with the good samples of the class, and `item.zero`, without them.
   *
   * @param {{category: string, shots: number, compare: boolean, map: boolean, first: boolean}} options `shots`: of the
   *   class at this time; `compare`: also without them; `map`: with its map; `first`: before those that wait
   */
  judge(item, options) {
    this.drop(item);
    item.few = { shots: options.shots };
    item.zero = { shots: 0 };
    item.stop = new AbortController();
    item.options = options;
    this.enqueue(item);
  }

  /** An item is looked at: its map is wanted, and the other half of a comparison. */
  complete(item, { compare }) {
    item.options = { ...item.options, compare, map: true, first: true };
    const isUnderWay = this.queue.includes(item) || item.running === item.stop.signal;
    if (!isUnderWay && missing(item)) this.enqueue(item);
  }

  enqueue(item) {
    if (item.options.first) this.queue.unshift(item);
    else this.queue.push(item);
    this.pump();
  }

  drop(item) {
    item.stop?.abort();
    this.queue = this.queue.filter((other) => other !== item);
    this.withMaps = this.withMaps.filter((other) => other !== item);
    for (const answer of [item.few, item.zero]) if (answer?.overlayUrl) URL.revokeObjectURL(answer.overlayUrl);
  }

  pump() {
    while (this.running < AT_A_TIME && this.queue.length) {
      this.running += 1;
      this.run(this.queue.shift()).finally(() => {
        this.running -= 1;
        this.pump();
      });
    }
  }

  /** Ask for what is missing; more may be wanted while it is asked. */
  async run(item) {
    const { signal } = item.stop;
    item.running = signal;
    await item.prepare();
    for (let which; !signal.aborted && (which = missing(item)); ) await this.ask(item, which, signal);
    if (signal.aborted) return;
    item.running = null;
    if (item.options.map) this.keepMap(item);
  }

  /** Ask for one answer, and put it, or the error, into `item[which]`. */
  async ask(item, which, signal) {
    const { category, map } = item.options;
    const answer = item[which];
    const set = (values) => {
      if (signal.aborted) return;
      Object.assign(answer, values);
      this.onChange(item);
    };
    const onWait = (seconds, { status }) => {
      const why = status === 429 ? "The service is busy" : "The service is not ready yet";
      set({ note: `${why}; trying again in ${Math.ceil(seconds)} s` });
    };
    answer.withMap = map;
    try {
      const fields = { class: category, map, overlay: map && item.isUnshowable, zero_shot: which === "zero" };
      const body = form(fields, [item.file]);
      const { results } = await askJson("v1/predict", { method: "POST", body, signal, onWait });
      set(read(results[0], item));
    } catch (error) {
      const lacksReferences = !recipe.zeroShot && error.type === "ReferencesError";
      set({ error: lacksReferences ? new ServiceError(NEEDED, error) : error });
    }
  }

  /** Only the maps of the pictures looked at last are kept. */
  keepMap(item) {
    this.withMaps = [...this.withMaps.filter((other) => other !== item), item];
    for (const old of this.withMaps.splice(0, Math.max(0, this.withMaps.length - MAPS_KEPT))) {
      for (const answer of [old.few, old.zero]) Object.assign(answer, { map: null, withMap: false });
    }
  }
}

/** Which answer is still to be asked for, if any. */
function missing({ few, zero, options }) {
  const isMissing = (answer) => !answer.error && (!answer.row || (options.map && !answer.withMap));
  if (isMissing(few)) return "few";
  return options.compare && isMissing(zero) ? "zero" : null;
}

function read(row, item) {
  const { map, overlay_png: overlay, ...rest } = row; // they are large, and not kept as they come
  const answer = { row: rest };
  if (map && !item.isUnshowable) answer.map = readMap(map);
  if (overlay) {
    const bytes = Uint8Array.from(atob(overlay), (letter) => letter.charCodeAt(0));
    answer.overlayUrl = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    answer.hint = "Your browser cannot show this format; this is the service's own picture of it.";
  }
  return answer;
}
