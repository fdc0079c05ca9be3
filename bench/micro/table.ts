/** Figures for people to read: a row an operation. */
import type { Figure } from './measure.ts';
import type { Unanswerable } from './question.ts';

const head = ['operation', 'ns/op', '±', 'ops/s'] as const;

/** The answer to one question, with an empty line behind it. */
export function tableOf(answer: readonly Figure[] | Unanswerable): string {
  if ('because' in answer) return `  not measured: ${answer.because}\n`;
  const rows = [head, ...answer.map(rowOf)];
  const widths = head.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const cell = (text: string, i: number) =>
    i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0);
  return rows.map((row) => `  ${row.map(cell).join('  ')}\n`).join('');
}

function rowOf({ operation, median, spread }: Figure): readonly string[] {
  return [operation, digits(median), digits(spread), grouped(1e9 / median)];
}

/** Three digits are more than a virtual machine can promise. */
function digits(value: number): string {
  if (value >= 100) return grouped(value);
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** Rounded to three digits, thousands apart. */
function grouped(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString('en').replaceAll(',', ' ');
}
