/**
 * Tells each thing that is wrong with a container once, however often it is found again. Texts hold what others
 * wrote into labels, so they are cut to a length, and a flood of them to a number.
 */
import { escapeControls, type Log, LogBudget } from '../log.ts';
import type { Container } from './container.ts';
import type { Refusal } from './routes.ts';

const longestText = 400;
const mostTexts = 16;

/** A refusal as it is shown: no text is longer than an operator reads. */
export interface Complaint {
  readonly container: string;
  readonly port: string | undefined;
  readonly reason: string;
}

export function complaintOf({ container, port, reason }: Refusal): Complaint {
  const text = escapeControls(reason);
  const shown = text.length > longestText ? `${text.slice(0, longestText)}…` : text;
  return { container: container.name, port, reason: shown };
}

export class Complaints {
  readonly #log: Log;
  readonly #budget: LogBudget;
  /** By container id. */
  readonly #told = new Map<string, Set<string>>();

  constructor(log: Log) {
    this.#log = log;
    this.#budget = new LogBudget(log);
  }

  tell(refusals: readonly Refusal[], message: string): void {
    for (const refusal of refusals) {
      const { container, port, reason } = complaintOf(refusal);
      const told = this.#told.get(refusal.container.id) ?? new Set();
      this.#told.set(refusal.container.id, told);
      const key = `${port} ${reason}`;
      if (told.has(key) || told.size >= mostTexts || !this.#budget.allows('docker')) continue;
      told.add(key);
      this.#log.warn({ container, ...(port === undefined ? {} : { rule: port }), reason }, message);
    }
  }

  /** Forgets containers that are gone; one that comes back is told of again. */
  retain(containers: readonly Container[]): void {
    const ids = new Set(containers.map(({ id }) => id));
    for (const id of this.#told.keys()) if (!ids.has(id)) this.#told.delete(id);
  }

  close(): void {
    this.#budget.close();
  }
}
