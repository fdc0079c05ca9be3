/**
 * What can be said of a handful of rounds.
 *
 * Why ratios, and why round by round. A virtual machine is slower for minutes at a time: its neighbours, its
 * clock, the memory it was given. That moves all subjects of a round together and is larger than most
 * differences between them. Divided by another subject's value *of the same round* it cancels; medians over
 * the rounds, divided afterwards, would keep it. So the round is the unit that is drawn, never the sample.
 *
 * Why the median. One round in which the machine paused must not decide, and rounds are too few to trim.
 *
 * The interval is the percentile bootstrap of the median: draw as many rounds as there are, with repetition,
 * take their median, again and again; 95 of 100 of these lie within it. For a median of few values it comes out
 * too narrow (of 7 rounds it leaves out both extremes and holds the true median in 87.5 of 100 runs), so it is
 * never taken narrower than the two order statistics that hold it in 95 of 100 runs whatever the distribution:
 * each round is above or below the true median as a coin falls, and that is all this needs. Up to 8 rounds
 * these are the lowest and the highest, which no bootstrap can go beyond, so that nothing need be drawn.
 *
 * What few rounds cannot say. Of 5 rounds the interval is all of them, lowest to highest, and a difference is
 * claimed when they all agree: by chance in 2 / 2⁵ = 6 of 100 comparisons of equals. Of 3 rounds that is 25 of
 * 100, of 6 it is 3, of 7 it is 2 (falseVerdicts). Of 1 or 2 rounds no interval is claimed at all: it is
 * stretched to hold 1. Nor does any number of rounds say more than what this machine did on that day.
 */

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** Below this the rounds say nothing of what the next one would have given. */
export const fewestRounds = 3;

const confidence = 0.95;
const tail = (1 - confidence) / 2;

/** Enough that an end of the interval lies between the same two rounds whatever the seed. */
const resamples = 2000;

/** Any: it is fixed so that the same samples give the same file. */
const seed = 0x6475616c;

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Between two values as far as the rank lies between theirs; NaN of none. */
export function quantile(values: readonly number[], probability: number): number {
  return sortedQuantile(ascending(values), probability);
}

/** The interval of the median of ratios, one a round; it holds their median, and of too few also 1. */
export function intervalOfRatios(ratios: readonly number[]): Interval {
  const sorted = ascending(ratios);
  const extremes = { low: sorted[0] ?? Number.NaN, high: sorted.at(-1) ?? Number.NaN };
  if (sorted.length < fewestRounds) return hull(extremes, { low: 1, high: 1 });
  return droppedAtEachEnd(sorted.length) === 0
    ? extremes
    : hull(bootstrapInterval(sorted), orderInterval(sorted));
}

/** The chance that a comparison of two equals ends in a verdict nevertheless. */
export function falseVerdicts(rounds: number): number {
  return rounds < fewestRounds ? 0 : 2 * coinTail(rounds, droppedAtEachEnd(rounds));
}

function bootstrapInterval(sorted: readonly number[]): Interval {
  const random = mulberry32(seed);
  const draw = () => sorted[Math.floor(random() * sorted.length)] ?? Number.NaN;
  const medians = ascending(Array.from({ length: resamples }, () => median(sorted.map(draw))));
  return { low: sortedQuantile(medians, tail), high: sortedQuantile(medians, 1 - tail) };
}

function orderInterval(sorted: readonly number[]): Interval {
  const dropped = droppedAtEachEnd(sorted.length);
  return { low: sorted[dropped] ?? Number.NaN, high: sorted[sorted.length - 1 - dropped] ?? Number.NaN };
}

/** As many rounds as may lie outside at either end; of too few rounds none, and the confidence is less. */
function droppedAtEachEnd(rounds: number): number {
  let dropped = 0;
  while (dropped + 1 < rounds / 2 && coinTail(rounds, dropped + 1) <= tail) dropped++;
  return dropped;
}

/** The chance of at most that many heads. */
function coinTail(tosses: number, heads: number): number {
  let exactly = 2 ** -tosses;
  let atMost = exactly;
  for (let k = 1; k <= heads; k++) {
    exactly *= (tosses - k + 1) / k;
    atMost += exactly;
  }
  return atMost;
}

function hull(a: Interval, b: Interval): Interval {
  return { low: Math.min(a.low, b.low), high: Math.max(a.high, b.high) };
}

function ascending(values: readonly number[]): readonly number[] {
  return values.toSorted((a, b) => a - b);
}

function sortedQuantile(sorted: readonly number[], probability: number): number {
  const rank = probability * (sorted.length - 1);
  const below = sorted[Math.floor(rank)] ?? Number.NaN;
  const above = sorted[Math.ceil(rank)] ?? Number.NaN;
  // Equal neighbours are returned as they are: a sum of fractions of them may differ in the last bit.
  return below === above ? below : below + (above - below) * (rank - Math.floor(rank));
}

/** A small generator of uniform numbers in [0, 1); Math.random takes no seed. */
function mulberry32(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
