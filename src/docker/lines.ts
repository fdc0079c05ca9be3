/**
 * Lines of a stream that never ends, each with a bound: of one that is longer only is said that there was one.
 */

const newline = 0x0a;

/** Yields each line, without its end, or undefined for one that is longer than maxBytes. */
export async function* readLines(
  chunks: AsyncIterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<string | undefined> {
  let kept: Buffer[] = [];
  let keptBytes = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      const bytes = keptBytes + end - start;
      yield bytes > maxBytes ? undefined : Buffer.concat([...kept, chunk.subarray(start, end)]).toString();
      kept = [];
      keptBytes = 0;
      start = end + 1;
    }
    keptBytes += chunk.length - start;
    // What is too long already is not kept: a line without end must not fill the memory.
    if (keptBytes > maxBytes) kept = [];
    else if (start < chunk.length) kept.push(chunk.subarray(start));
  }
}
