/**
 * Another thread, as the main one holds it: orders go there, and answers, log lines and notices come back. Orders
 * are obeyed in the order they were given.
 */
import { Worker } from 'node:worker_threads';
import type { Notice } from '../engine/engine.ts';
import { messageOf } from '../errors.ts';
import type { FlowRecord } from '../flow/flow.ts';
import { type Log, makeHandOver, writeLines } from '../log.ts';
import type { NumberedOrder, Order, Report, ThreadData } from './thread-words.ts';

interface Answer {
  resolve(answer: number): void;
  reject(error: Error): void;
}

export class Thread {
  /** Rejects when there can be no such thread. */
  readonly started: Promise<unknown>;
  readonly #number: number;
  readonly #log: Log;
  readonly #notice: Notice;
  readonly #ended: (record: FlowRecord) => void;
  readonly #handOver = makeHandOver();
  readonly #awaited = new Map<number, Answer>();
  readonly #worker: Worker | undefined;
  readonly #exited: Promise<unknown>;
  #orders = 0;
  #begun = false;
  #ending = false;
  #isOver = false;
  /** Why it never began. */
  #failure: Error | undefined;

  /**
   * @param number the main thread is number 1
   * @param ended hears of some of the flows that have ended there
   */
  constructor(
    number: number,
    data: Omit<ThreadData, 'handOver' | 'logLevel'>,
    log: Log,
    notice: Notice,
    ended: (record: FlowRecord) => void,
  ) {
    this.#number = number;
    this.#log = log;
    this.#notice = notice;
    this.#ended = ended;
    this.#worker = this.#begin({ ...data, logLevel: log.level, handOver: this.#handOver });
    this.#exited = new Promise((resolve) => this.#worker?.on('exit', resolve) ?? resolve(0));
    this.started = this.order({ do: 'count' });
  }

  /** Obeyed behind those that were given before. A thread that has ended has nothing that an order could be about. */
  async order(order: Order): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isOver) return 0;
    const number = ++this.#orders;
    this.#worker?.postMessage({ number, order } satisfies NumberedOrder);
    return new Promise((resolve, reject) => this.#awaited.set(number, { resolve, reject }));
  }

  async busyFlows(): Promise<number> {
    return this.#failure === undefined ? this.order({ do: 'count' }) : 0;
  }

  /** Once the thread has closed its engine, has said what there was to say, and is gone. */
  async end(): Promise<void> {
    if (!this.#ending) this.order({ do: 'end' }).catch(() => {});
    this.#ending = true;
    await this.#exited;
  }

  /** A system without room for one more thread says so here. */
  #begin(workerData: ThreadData): Worker | undefined {
    try {
      const worker = new Worker(new URL('./thread.js', import.meta.url), {
        workerData,
        name: `thread ${this.#number}`,
      });
      worker.on('message', (report: Report) => this.#hear(report));
      worker.on('error', (error) => this.#died(error));
      worker.on('exit', (status) => {
        if (this.#ending) this.#settle();
        else this.#died(new Error(`it ended with status ${status}`));
      });
      return worker;
    } catch (error) {
      this.#died(error);
      return undefined;
    }
  }

  #hear(report: Report): void {
    if ('lines' in report) return writeLines(this.#log, this.#handOver, report.lines);
    if ('notice' in report) return this.#notice(report.notice);
    if ('ended' in report) return this.#ended(report.ended);
    this.#begun = true;
    const answer = this.#awaited.get(report.done);
    this.#awaited.delete(report.done);
    if ('answer' in report) answer?.resolve(report.answer);
    else answer?.reject(Object.assign(new Error(report.failure.message), { code: report.failure.code }));
  }

  #settle(): void {
    this.#isOver = true;
    for (const { resolve } of this.#awaited.values()) resolve(0);
    this.#awaited.clear();
  }

  /** Whoever waits for a thread that never began hears of it; one that had clients takes the process with it. */
  #died(error: unknown): void {
    if (this.#begun) {
      const reason = `thread ${this.#number} has died: ${messageOf(error)}`;
      this.#log.error({ reason }, 'dualport ends: its ports would be served in part');
      throw new Error(reason, { cause: error });
    }
    this.#failure ??= new Error(messageOf(error), { cause: error });
    for (const { reject } of this.#awaited.values()) reject(this.#failure);
    this.#awaited.clear();
  }
}
