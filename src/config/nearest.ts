/**
 * Which known word a user most likely meant. Only used to word an error, so it may be slow and may be wrong,
 * but it says nothing rather than something far off.
 */

/** The known word that is the fewest edits away, or undefined when none is close. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const folded = fold(word);
  let best: string | undefined;
  // An edit to every letter is another word.
  let bestDistance = Math.min(folded.length, Math.max(3, Math.floor(folded.length / 3) + 1));
  for (const candidate of known) {
    const distance = editDistance(folded, fold(candidate));
    if (distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

/** `; did you mean X?`, or nothing. */
export function suggestion(word: string, known: readonly string[]): string {
  const meant = nearest(word, known);
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}

/** `connect-timeout`, `CONNECT_TIMEOUT` and `connectTimeout` are one word; past 64 characters nobody meant it. */
function fold(word: string): string {
  return word.slice(0, 64).replaceAll(/[-_]/g, '').toLowerCase();
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (const [i, letter] of [...a].entries()) {
    const above = row;
    row = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (above[j] ?? 0) + (b[j] === letter ? 0 : 1);
      row.push(Math.min(replaced, (above[j + 1] ?? 0) + 1, (row[j] ?? 0) + 1));
    }
  }
  return row.at(-1) ?? 0;
}
