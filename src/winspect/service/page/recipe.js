// What the service's recipe is: where its scores run, and whether it judges without good samples.

import { byId } from "./dom.js";

/** `low` and `high` of scores, null where there is no highest; `zeroShot`: whether no good samples are needed. */
export const recipe = { low: 0, high: 1, zeroShot: true };

/** Take what `GET /v1/model` says. */
export function setRecipe({ score_range: [low, high], zero_shot: zeroShot }) {
  Object.assign(recipe, { low, high, zeroShot });
  byId("empty-score").textContent = isUnit() ? "A score near 1 is most anomalous" : "A higher score is more anomalous";
}

const isUnit = () => recipe.low === 0 && recipe.high === 1;

/**
 * The score at which a meter is full: 1 where scores end there; else twice the threshold, for few scores come near the
 * highest. Null where nothing says what is much.
 */
export function fullScore(threshold) {
  if (isUnit()) return 1;
  return threshold > 0 ? 2 * threshold : null;
}

/** What a score without a threshold means. */
export function rangeText() {
  if (isUnit()) return "Scores lie between 0 and 1; 1 is most anomalous.";
  const ends = recipe.high === null ? `are ${recipe.low} or more` : `lie between ${recipe.low} and ${recipe.high}`;
  return `Scores ${ends}; more is more anomalous, and a threshold says what is much.`;
}
