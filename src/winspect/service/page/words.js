// Numbers in words. No page, no network: every function returns text.

const SHORT = 3;

/** A score with two decimals; very small ones are not told as 0. */
export function score(value) {
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(2);
}

/** A share as "1 in 100", "3 in 100" or "15 in 1000". */
export function share(rate) {
  const pictures = 1 / rate;
  if (Math.abs(pictures - Math.round(pictures)) < 1e-6) return `1 in ${Math.round(pictures)}`;
  for (const of of [100, 1000, 10000]) {
    const some = rate * of;
    if (Math.abs(some - Math.round(some)) < 1e-6) return `${Math.round(some)} in ${of}`;
  }
  return `${percent(rate)} %`;
}

/** A share in per cent, without trailing zeros. */
export function percent(rate) {
  return String(Number((100 * rate).toPrecision(SHORT)));
}

/** The rate behind a number of per cent: 2.9 gives 0.029, not the binary fraction beside it. */
export function rateOf(percentage) {
  return Number((percentage / 100).toPrecision(12));
}

/** The fewest good pictures for a rate of false alarms: the smallest p-value is 1 / (n + 1). */
export function neededPictures(rate) {
  return Math.ceil(1 / rate - 1e-9) - 1;
}

/** What a p-value says. */
export function pValue(value) {
  const rounded = Number(value.toPrecision(2));
  return `p-value ${rounded}: at most ${percent(rounded)} % of good pictures score so high.`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function day(date) {
  const parsed = new Date(date);
  return Number.isNaN(parsed.getTime()) ? "" : parsed.toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** A verdict as a badge says it. */
export const VERDICTS = { normal: "Normal", review: "Review", anomalous: "Anomalous" };
