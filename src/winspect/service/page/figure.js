// One picture with its map, score, verdict and threshold.

import { copyOf, show, tell } from "./dom.js";
import { paint } from "./heat.js";
import { fullScore, rangeText, recipe } from "./recipe.js";
import { VERDICTS, count, pValue, score } from "./words.js";

const clamp = (value) => Math.min(1, Math.max(0, value));

export class Figure {
  /**
   * @param {{onAgain: () => void, onUse: () => void, onPoint: (value: number | null) => void}} handlers what the
   *   buttons do, and what hears the map's value under the pointer (null: outside)
   */
  constructor({ onAgain, onUse, onPoint }) {
    this.root = copyOf("figure-template");
    this.map = null;
    this.boxes = [];
    this.part(".again").addEventListener("click", onAgain);
    this.part(".use").addEventListener("click", onUse);
    const stack = this.part(".stack");
    stack.addEventListener("pointermove", (event) => onPoint(this.valueAt(event)));
    stack.addEventListener("pointerleave", () => onPoint(null));
    const image = this.part("img");
    image.addEventListener("load", () => {
      stack.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
      show(stack, true);
      this.drawBoxes();
    });
    image.addEventListener("error", () => show(stack, false));
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  /** The map's value under the pointer; null where there is none. */
  valueAt(event) {
    if (!this.map) return null;
    const box = this.part(".stack").getBoundingClientRect();
    const place = (offset, side, length) => Math.floor(clamp(offset / side) * (length - 1e-6));
    const column = place(event.clientX - box.left, box.width, this.map.width);
    const row = place(event.clientY - box.top, box.height, this.map.height);
    return this.map.values[row * this.map.width + column];
  }

  /**
   * @param {object} item the picture: `name`, `url`
   * @param {object} answer what is known: `row`, `map`, `overlayUrl`, `shots`, `error`, `note`
   * @param {{mayUse: boolean, isBeside: boolean}} options whether it is offered as a good sample; whether it stands
   *   beside the judgement that decides
   */
  show(item, answer, { mayUse, isBeside }) {
    const { row, error, note, hint } = answer;
    this.part("figcaption").textContent = how(row?.shots ?? answer.shots);
    this.showPicture(item, answer);
    const isJudged = row?.anomaly_score != null;
    this.root.setAttribute("aria-busy", String(!row && !error));
    this.part(".note").textContent = error || isJudged ? "" : note ?? "Judging…";
    const warning = row?.warning ? `Warning: ${row.warning}` : "";
    // The service's own picture of a file may be smaller than the file, whose pixels the boxes are in.
    this.boxes = answer.overlayUrl ? [] : row?.boxes ?? [];
    this.drawBoxes();
    const marked = this.boxes.length ? `${count(this.boxes.length, "region")} marked` : "";
    this.part(".hint").textContent = [warning, marked, hint].filter(Boolean).join(" · ");
    show(this.part(".picture"), !error || !item.isUnshowable);
    show(this.part(".verdict-line"), isJudged);
    show(this.part(".meter"), isJudged);
    if (isJudged) this.showScore(row);
    show(this.part(".verdict"), !isBeside || row?.verdict != null);
    this.part(".threshold").textContent = isJudged ? thresholdText(row, isBeside) : "";
    this.part(".p-value").textContent = row?.p_value != null ? pValue(row.p_value) : "";
    tell(this.part(".error"), error?.message);
    show(this.part(".again"), error?.status === 0 || error?.status >= 500); // others would fail again
    show(this.part(".use"), isJudged && mayUse);
  }

  showPicture(item, { overlayUrl }) {
    const url = overlayUrl ?? item.url;
    const image = this.part("img");
    if (image.getAttribute("src") === url) return;
    image.src = url;
    image.alt = item.name;
  }

  /** Boxes of defects over the picture; how many there are stands below it in words. */
  drawBoxes() {
    const svg = this.part(".boxes");
    const { naturalWidth, naturalHeight } = this.part("img");
    svg.setAttribute("viewBox", `0 0 ${naturalWidth} ${naturalHeight}`);
    const rectangle = ([x0, y0, x1, y1], kind) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const values = { class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
      for (const [name, value] of Object.entries(values)) rect.setAttribute(name, value);
      return rect;
    };
    svg.replaceChildren(...this.boxes.flatMap((box) => [rectangle(box, "halo"), rectangle(box, "line")]));
  }

  showScore({ anomaly_score: value, verdict, threshold }) {
    this.part(".score").textContent = score(value);
    const badge = this.part(".verdict");
    badge.textContent = VERDICTS[verdict] ?? "No threshold yet";
    badge.dataset.verdict = verdict ?? "";
    const meter = this.part(".meter");
    const full = fullScore(threshold);
    show(meter, full !== null);
    if (full === null) return;
    meter.dataset.verdict = verdict ?? "";
    meter.style.setProperty("--score", clamp(value / full));
    meter.setAttribute("aria-valuemax", Number(Math.max(full, value).toFixed(3)));
    meter.setAttribute("aria-valuenow", value.toFixed(3));
    meter.setAttribute("aria-valuetext", `${score(value)}${verdict ? `, ${verdict}` : ""}`);
    const mark = this.part(".mark");
    show(mark, threshold != null);
    if (threshold != null) mark.style.setProperty("--threshold", clamp(threshold / full));
  }

  /** Paint the map, or nothing, with the colours over a range of scores. */
  paint(map, range, opacity) {
    const canvas = this.part("canvas");
    this.map = map;
    show(canvas, Boolean(map));
    canvas.style.opacity = opacity;
    if (map) paint(canvas, map, range);
  }

  set opacity(value) {
    this.part("canvas").style.opacity = value;
  }
}

function how(shots) {
  if (!shots) return recipe.zeroShot ? "Zero-shot" : "Without references";
  return `With ${count(shots, "reference")}`;
}

function thresholdText({ threshold, review_threshold: review, verdict, reason }, isBeside) {
  if (verdict == null) return isBeside ? "For comparison." : rangeText();
  if (reason) return `Reason: ${reason}.`;
  if (review != null) {
    return `Thresholds ${review.toFixed(3)} (review) and ${threshold.toFixed(3)}: the score stays below both.`;
  }
  return `Threshold ${threshold.toFixed(3)}: the score ${verdict === "anomalous" ? "lies above" : "stays below"} it.`;
}
