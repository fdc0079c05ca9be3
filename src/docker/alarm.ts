/**
 * When to look again: the earliest of all the times that were asked for. What is asked while a look is under
 * way counts for the next one.
 */
export class Alarm {
  #dueAt = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #requested = false;
  #rung = false;
  #ring: () => void = () => {};

  /** @param requested somebody has a reason, beside that time goes by */
  within(ms: number, requested: boolean): void {
    this.#requested ||= requested;
    const at = performance.now() + ms;
    if (at >= this.#dueAt) return;
    this.#dueAt = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#rung = true;
      this.#ring();
    }, ms);
  }

  /** Until the time has come; true when it was requested. */
  async wait(): Promise<boolean> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        this.#ring = resolve;
      });
    }
    const requested = this.#requested;
    this.stop();
    return requested;
  }

  /** Forgets what was asked for. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#dueAt = Number.POSITIVE_INFINITY;
    this.#requested = false;
    this.#rung = false;
  }
}
