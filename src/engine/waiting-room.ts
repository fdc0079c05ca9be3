/**
 * Clients that were accepted and have no place yet. They wait in order; what they send stays in their sockets, and
 * they hear nothing until a flow has ended and it is their turn. Whoever finds no room to wait either is turned away.
 */
import type { Admission } from './admission.ts';

export interface WaitingClient {
  begin(): void;
  giveUp(): void;
}

export class WaitingRoom {
  readonly #waiting = new Set<WaitingClient>();
  readonly #admission: Admission;
  readonly #most: number;

  /** @param most descriptors that waiting clients may hold */
  constructor(admission: Admission, most: number) {
    this.#admission = admission;
    this.#most = most;
  }

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** A client that was accepted now has to wait: whoever came before goes first. */
  get mustWait(): boolean {
    return this.#admission.isFull || !this.isEmpty;
  }

  get hasRoom(): boolean {
    return this.#waiting.size < this.#most;
  }

  add(client: WaitingClient): void {
    this.#waiting.add(client);
  }

  /** It has given up, or its listener has. */
  remove(client: WaitingClient): void {
    this.#waiting.delete(client);
  }

  /** As many as there are places. */
  letIn(): void {
    for (const client of this.#waiting) {
      if (this.#admission.isFull) return;
      this.#waiting.delete(client);
      client.begin();
    }
  }

  close(): void {
    for (const client of this.#waiting) client.giveUp();
  }
}
