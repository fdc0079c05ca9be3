/**
 * Sockets that other processes have bound and hand over, through a unix socket of its own core: it shares nothing with
 * the engine but the descriptors that the engine adopts.
 */
import { closeSync } from 'node:fs';
import type { Giver, Handover } from '../engine.ts';
import { Core, mostHanded, type SlotOwner } from './core.ts';
import { eventKind } from './layout.ts';
import type { Native } from './native.ts';

/**
 * @param most of them at once; the next is sent away
 * @throws the system's error
 */
export function openHandover(
  native: Native,
  path: string,
  most: number,
  heard: (giver: Giver) => void,
): Handover {
  const core = new Core(native, mostHanded + 1);
  try {
    const slot = core.listenHandover(path, Math.min(most, mostHanded));
    core.own(slot, { happened: () => heard(new CoreGiver(core)) });
    return { stop: () => core.close(slot, false), close: () => core.shut() };
  } catch (error) {
    core.shut();
    throw error;
  }
}

class CoreGiver implements Giver, SlotOwner {
  readonly text: string;
  readonly pid: number;
  readonly #core: Core;
  readonly #slot: number;
  #heard: (() => void) | undefined;
  #isBack = false;

  /** @param core with the event of its coming at hand */
  constructor(core: Core) {
    this.text = core.payload().toString('utf8');
    this.pid = core.pid();
    this.#core = core;
    this.#slot = core.slot;
    core.own(core.slot, this);
  }

  take(): number {
    return this.#core.takeHanded(this.#slot);
  }

  answer(text: string): void {
    this.#core.answerGiver(this.#slot, text);
  }

  refuse(text: string): void {
    const descriptor = this.take();
    if (descriptor >= 0) closeSync(descriptor);
    this.answer(text);
    this.close();
  }

  onBack(heard: () => void): void {
    if (this.#isBack) heard();
    else this.#heard = heard;
  }

  close(): void {
    this.#core.close(this.#slot, false);
  }

  happened(core: Core): void {
    if (core.kind !== eventKind.handedBack) return;
    this.#isBack = true;
    this.#heard?.();
  }
}
