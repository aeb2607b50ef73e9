// Small helpers around the document. Text from users and the service reaches it through textContent alone.

export const byId = (id) => document.getElementById(id);

/** A copy of a template's only element. */
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);

export function show(element, isShown) {
  element.hidden = !isShown;
}

/** A message near what caused it, with one line for each of further things; no message hides the element. */
export function tell(element, message, lines = []) {
  element.replaceChildren();
  show(element, Boolean(message));
  if (!message) return;
  element.append(message);
  if (!lines.length) return;
  const list = document.createElement("ul");
  for (const line of lines) {
    const item = document.createElement("li");
    item.textContent = line;
    list.append(item);
  }
  element.append(list);
}

const MOST_TOLD = 5;

/** An error, if there is one, and the pictures that were not taken. */
export function tellRefused(element, refused, error = null) {
  const line = ({ name, message }) => (message.includes(name) ? message : `${name}: ${message}`);
  const lines = refused.slice(0, MOST_TOLD).map(line);
  if (refused.length > MOST_TOLD) lines.push(`and ${refused.length - MOST_TOLD} more`);
  const title = refused.length === 1 ? "One picture was not taken:" : `${refused.length} pictures were not taken:`;
  tell(element, [error?.message, refused.length ? title : ""].filter(Boolean).join(". "), lines);
}

/** For screen readers: what is not news to the eye. */
export function announce(text) {
  byId("announce").textContent = text;
}
