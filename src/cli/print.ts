/** What a command has to say, on standard output. */

/**
 * Done when everything is written: a pipe takes 64 KiB at once, and a process that ends takes the rest with it. A reader
 * that has left early is no failure.
 */
export function print(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}
