// The package's own pictures, to try things with.

import { ask, askJson } from "./api.js";
import { byId, copyOf, tell } from "./dom.js";

const KINDS = { good: "good", defective: "defective" };

async function fileOf({ name }) {
  const response = await ask(`v1/samples/${encodeURIComponent(name)}`);
  const picture = await response.blob();
  return new File([picture], name, { type: picture.type });
}

/**
 * Fill the list of samples.
 *
 * @param {(category: string, file: File) => void} onTry a sample is to be judged
 * @param {(category: string, file: File) => void} onUse a good one is to be a reference
 */
export async function showSamples(onTry, onUse) {
  try {
    const { samples } = await askJson("v1/samples");
    const classes = new Map();
    for (const sample of samples) classes.set(sample.class, [...(classes.get(sample.class) ?? []), sample]);
    for (const [category, pictures] of classes) byId("samples").append(entryOf(category, pictures, onTry, onUse));
  } catch (error) {
    tell(byId("samples-error"), `The samples could not be had. ${error.message}`);
  }
}

function entryOf(category, samples, onTry, onUse) {
  const entry = copyOf("sample-template");
  entry.querySelector("h4").textContent = category;
  const files = samples.map(fileOf);
  const act = (action, index) => async () => {
    try {
      action(category, await files[index]);
    } catch (error) {
      tell(byId("samples-error"), error.message);
    }
  };
  samples.forEach((sample, index) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    const label = document.createElement("span");
    image.alt = "";
    label.textContent = KINDS[sample.kind] ?? "";
    button.setAttribute("aria-label", `Judge a ${sample.kind} ${category}`);
    button.append(image, label);
    button.addEventListener("click", act(onTry, index));
    files[index].then((file) => (image.src = URL.createObjectURL(file)), () => {}); // a click tells the error
    entry.querySelector(".pair").append(button);
  });
  const good = samples.findIndex((sample) => sample.kind === "good");
  entry.querySelector(".quiet").addEventListener("click", act(onUse, good));
  entry.querySelector(".quiet").setAttribute("aria-label", `Use the good ${category} as a reference`);
  return entry;
}
