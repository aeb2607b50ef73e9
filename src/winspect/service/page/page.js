// The page: what the user does, and what is shown for it.

import { askJson } from "./api.js";
import { Calibration } from "./calibration.js";
import { announce, byId, show, tell } from "./dom.js";
import { Figure } from "./figure.js";
import { acceptDrops, connectChooser, thumbnail } from "./files.js";
import { paintLegend, stretchedRange } from "./heat.js";
import { Judging } from "./judging.js";
import { recipe, setRecipe } from "./recipe.js";
import { References } from "./references.js";
import { showSamples } from "./samples.js";
import { connectKey, watchService } from "./state.js";
import { Strip } from "./strip.js";
import { VERDICTS, score } from "./words.js";

const MAPS_AT_ONCE = 24; // of more pictures, maps are asked for when they are looked at
const DEFAULT_CLASS = "object";
const TYPING_MS = 500; // a pause after which a class is taken to be typed to its end
const ONE_COLUMN = "(max-width: 820px)"; // as in page.css

const items = [];
let selected = null;
let category = DEFAULT_CLASS;
let refreshed = null; // the class that the service has been asked about
let typing = null; // the pause that runs

const currentClass = () => category;
const references = new References(currentClass, () => {
  judgeAll();
  calibration.tryRefresh(); // it was made with other references, or fits again
});
const calibration = new Calibration(currentClass, judgeAll);
const judging = new Judging(itemChanged);
const strip = new Strip(select);
const figures = {
  few: new Figure({ onAgain: judgeSelected, onUse: useSelected, onPoint: pointAt }),
  zero: new Figure({ onAgain: judgeSelected, onUse: useSelected, onPoint: pointAt }),
};

// -- pictures

function add(files) {
  const added = files.map((file) => ({ file, name: file.name, url: URL.createObjectURL(file), few: {}, zero: {} }));
  for (const item of added) {
    items.push(item);
    strip.add(item);
    item.prepare = () => (item.prepared ??= prepare(item));
  }
  selectFirstOf(added);
  for (const item of added) judge(item);
}

function selectFirstOf(added) {
  show(byId("empty"), false);
  show(byId("shown"), true);
  show(byId("clear"), true);
  select(added[0]);
  // Where the page is one column, the result lies below what was just used.
  if (matchMedia(ONE_COLUMN).matches) byId("result").scrollIntoView();
}

/** Its thumbnail. What a browser cannot read, as TIFF, is shown as the service paints it. */
async function prepare(item) {
  const canvas = await thumbnail(item.file);
  item.isUnshowable = !canvas;
  strip.picture(item, canvas);
}

function judge(item) {
  const map = items.length <= MAPS_AT_ONCE || item === selected;
  judging.judge(item, { category, shots: references.shots, compare: isComparing(), map, first: item === selected });
  if (item === selected) draw();
}

function judgeAll() {
  show(byId("compare-label"), mayCompare());
  for (const item of items) judge(item);
}

function judgeSelected() {
  if (selected) judge(selected);
}

function useSelected() {
  if (selected) references.add([selected.file]);
}

function clear() {
  for (const item of items) {
    judging.drop(item);
    URL.revokeObjectURL(item.url);
  }
  items.length = 0;
  selected = null;
  strip.clear();
  byId("figures").replaceChildren();
  byId("progress").textContent = byId("name").textContent = "";
  show(byId("empty"), true);
  show(byId("shown"), false);
  show(byId("clear"), false);
  byId("choose").focus();
}

// -- what is shown

const mayCompare = () => recipe.zeroShot && references.shots > 0;
const isComparing = () => byId("compare").checked && mayCompare();

function select(item) {
  selected = item;
  strip.select(item);
  draw();
  if (item.stop) judging.complete(item, { compare: isComparing() });
}

function itemChanged(item) {
  strip.update(item);
  const done = items.filter(({ few }) => few.row || few.error).length;
  byId("progress").textContent = items.length > 1 && done < items.length ? `${done} of ${items.length} judged` : "";
  if (item !== selected) return;
  draw();
  const { row, error } = item.few;
  if (error) announce(`${item.name}: ${error.message}`);
  if (!row) return;
  const judged = [`score ${score(row.anomaly_score)}`, VERDICTS[row.verdict]].filter(Boolean).join(", ");
  announce(`${item.name}: ${judged}`);
}

function draw() {
  byId("name").textContent = selected.name;
  const shown = isComparing() ? ["zero", "few"] : ["few"];
  const roots = shown.map((which) => figures[which].root);
  const frame = byId("figures");
  const isAsBefore = roots.length === frame.children.length && roots.every((root, at) => root === frame.children[at]);
  if (!isAsBefore) frame.replaceChildren(...roots);
  for (const which of shown) {
    const isBeside = which === "zero";
    figures[which].show(selected, selected[which], { mayUse: !isBeside && !isReference(), isBeside });
  }
  paint(shown);
}

const isReference = () => references.has(selected.file);

function paint(shown) {
  const maps = shown.map((which) => selected[which].map).filter(Boolean);
  const isStretched = byId("stretch").checked && maps.length > 0;
  const ranges = maps.length ? maps.map((map) => (isStretched ? stretchedRange(map) : map.range)) : [[0, 1]];
  // One range for all, so that colours can be compared.
  const range = [Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))];
  for (const which of shown) figures[which].paint(selected[which].map ?? null, range, opacity());
  for (const [at, end] of ["low", "high"].entries()) {
    const value = range[at];
    byId(`legend-${end}`).textContent = Number.isInteger(value) ? String(value) : value.toFixed(2);
  }
  show(byId("controls"), maps.length > 0);
  byId("controls").dataset.range = range.join(" ");
  pointAt(null);
}

const opacity = () => byId("opacity").valueAsNumber / 100;

/** Say what the map has under the pointer. */
function pointAt(value) {
  const [low, high] = byId("controls").dataset.range.split(" ").map(Number);
  const mark = byId("legend-mark");
  show(mark, value !== null);
  byId("legend-text").textContent = value === null ? "how anomalous each place is" : `${score(value)} here`;
  if (value !== null) mark.style.setProperty("--place", Math.min(1, Math.max(0, (value - low) / (high - low))));
}

// -- the class

/** What is typed is the class of what is judged from now on; the service is asked about it after a pause. */
function typeClass({ target }) {
  category = target.value.trim() || DEFAULT_CLASS;
  clearTimeout(typing);
  typing = setTimeout(commitClass, TYPING_MS);
}

async function commitClass() {
  clearTimeout(typing);
  const name = byId("class").value.trim() || DEFAULT_CLASS;
  if (name === refreshed) return;
  if (await changeClass(name)) judgeAll();
}

async function changeClass(name) {
  clearTimeout(typing);
  category = name.trim() || DEFAULT_CLASS;
  calibration.leave();
  return refreshClass();
}

/** Ask what the service has of the class; false, and a message, where it is none that it takes. */
async function refreshClass() {
  refreshed = category;
  tell(byId("class-error"), "");
  byId("class").removeAttribute("aria-invalid");
  try {
    await Promise.all([references.refresh(), calibration.refresh()]);
    return true;
  } catch (error) {
    tell(byId("class-error"), error.message);
    byId("class").setAttribute("aria-invalid", "true");
    references.forget();
    calibration.forget();
    return false;
  } finally {
    show(byId("compare-label"), mayCompare());
  }
}

async function setClass(name) {
  if (name === category && name === refreshed) return;
  byId("class").value = name;
  await changeClass(name);
}

async function trySample(name, file) {
  if (name !== category) clear();
  await setClass(name);
  const known = items.find((item) => item.name === file.name);
  if (known) select(known);
  else add([file]);
}

async function useSample(name, file) {
  if (name !== category) clear();
  await setClass(name);
  await references.add([file]);
}

// -- start

async function showModel() {
  const described = await askJson("v1/model");
  setRecipe(described);
  const { winspect, model, engine, precision, device } = described;
  byId("model").textContent = [`winspect ${winspect}`, model, engine, precision, device].filter(Boolean).join(" · ");
}

async function start() {
  const [{ classes }] = await Promise.all([askJson("v1/classes"), showModel()]);
  references.draw(); // its words follow the recipe
  byId("classes").replaceChildren(...classes.map(({ class: name }) => new Option(name)));
  const isServed = await refreshClass();
  // A service may be for some classes only, and nobody has named one yet.
  if (!isServed && !byId("class").value && classes.length) await setClass(classes[0].class);
}

function connect() {
  paintLegend(byId("legend"));
  connectKey();
  connectChooser(byId("choose"), byId("files"), add);
  acceptDrops(document.documentElement, add);
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) add([...clipboardData.files]);
  });
  byId("clear").addEventListener("click", clear);
  byId("class").addEventListener("input", typeClass);
  byId("class").addEventListener("change", commitClass);
  byId("opacity").addEventListener("input", () => {
    for (const figure of Object.values(figures)) figure.opacity = opacity();
  });
  byId("stretch").addEventListener("change", draw);
  byId("compare").addEventListener("change", () => select(selected));
  showSamples(trySample, useSample);
  references.draw();
  calibration.draw();
  watchService(() => start().catch((error) => tell(byId("class-error"), error.message)));
}

connect();
