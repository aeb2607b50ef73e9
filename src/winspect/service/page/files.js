// Pictures from a drop, the clipboard or a chooser.

// The endings of winspect.pictures.formats; a test compares them.
const PICTURE_NAME =
  /\.(jpg|jpeg|jpe|jfif|jif|mpo|png|apng|bmp|dib|tif|tiff|webp|gif|pnm|pbm|pgm|ppm|jp2|j2k|j2c|jpc|jpf|jpx)$/i;

/** Whether a file of a folder is worth sending; of what was chosen one by one, the service says it. */
export function looksLikePicture(file) {
  return file.type.startsWith("image/") || PICTURE_NAME.test(file.name);
}

/** The files of a drop; those of folders too, the pictures among them. */
export async function dropped(transfer) {
  // The entries must be taken before the first await: the drop is emptied after it.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = await Promise.all(entries.map(filesBelow));
  return found.flat().filter(looksLikePicture);
}

async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time
    if (!some.length) break;
    for (const child of some) found.push(...(await filesBelow(child)));
  }
  return found;
}

/** Let files be dropped on an element; one inside it may take them for itself. */
export function acceptDrops(element, onFiles) {
  let depth = 0; // dragenter and dragleave also come from the children
  const on = (name, act) =>
    element.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.stopPropagation();
      depth = Math.max(0, act(event));
      element.classList.toggle("dropping", depth > 0);
    });
  on("dragenter", () => depth + 1);
  on("dragleave", () => depth - 1);
  on("dragover", (event) => {
    event.preventDefault();
    return depth;
  });
  on("drop", (event) => {
    event.preventDefault();
    dropped(event.dataTransfer).then((files) => files.length && onFiles(files));
    return 0;
  });
}

/** A button opens a file input, and what is chosen arrives. */
export function connectChooser(button, input, onFiles) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same choice again is a change again
    if (files.length) onFiles(files);
  });
}

/** A small picture of a file, as a canvas; null for what a browser cannot show. */
export async function thumbnail(file, side = 144) {
  try {
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = side / Math.min(picture.width, picture.height);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [side, side];
    const [width, height] = [picture.width * scale, picture.height * scale];
    canvas.getContext("2d").drawImage(picture, (side - width) / 2, (side - height) / 2, width, height);
    picture.close();
    return canvas;
  } catch {
    return null;
  }
}
