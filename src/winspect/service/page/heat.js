// Anomaly maps as colours. The colours and the stretched range are those of winspect/pictures/heatmaps.py.

const ANCHORS = [
  [255, 237, 111],
  [253, 174, 48],
  [240, 82, 30],
  [205, 12, 40],
  [150, 0, 80],
];
const SMALLEST_SPAN = 0.15; // of scores over all colours, or of the highest above 1, so that a good part's noise is not painted red
const MEDIAN_OF = 20_000; // values that a median is taken of

/** 256 steps of heat, RGBA; the low end is transparent, so that what is normal stays visible as it is. */
export function colourTable() {
  const table = new Uint8ClampedArray(256 * 4);
  for (let step = 0; step < 256; step++) {
    const place = (step / 255) * (ANCHORS.length - 1);
    const below = Math.min(Math.floor(place), ANCHORS.length - 2);
    const part = place - below;
    for (let channel = 0; channel < 3; channel++) {
      table[4 * step + channel] = ANCHORS[below][channel] * (1 - part) + ANCHORS[below + 1][channel] * part;
    }
    table[4 * step + 3] = 255 * Math.min(1, (1.5 * step) / 255);
  }
  return table;
}

const TABLE = new Uint32Array(colourTable().buffer);

/** The map of an answer: `{height, width, values, range}`, row by row; `range` of its colours. */
export function readMap({ shape: [height, width], data, range }) {
  const text = atob(data);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  return { height, width, values: new Float32Array(bytes.buffer), range };
}

/** The scores at which colour starts and is strongest: the map's median, and its maximum or more. */
export function stretchedRange(map) {
  const every = Math.max(1, Math.floor(map.values.length / MEDIAN_OF));
  const some = map.values.filter((_, index) => index % every === 0).sort();
  const low = some[some.length >> 1];
  const high = map.values.reduce((most, value) => Math.max(most, value), -Infinity);
  return [low, Math.max(high, low + SMALLEST_SPAN * Math.max(1, high))];
}

/** Paint a map on a canvas of its own size. */
export function paint(canvas, map, [low, high]) {
  [canvas.width, canvas.height] = [map.width, map.height];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(map.width, map.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const scale = 255 / (high - low);
  for (let index = 0; index < pixels.length; index++) {
    const step = (map.values[index] - low) * scale;
    pixels[index] = TABLE[step < 0 ? 0 : step > 255 ? 255 : step | 0];
  }
  context.putImageData(picture, 0, 0);
}

/** Paint the colours from low to high, left to right. */
export function paintLegend(canvas) {
  paint(canvas, { width: 256, height: 1, values: Float32Array.from({ length: 256 }, (_, step) => step / 255) }, [0, 1]);
}
