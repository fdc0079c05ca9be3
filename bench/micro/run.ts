/** `npm run bench:micro -- [--quick] [question…]`: answers all questions, or those that are named. */
import { parseArgs } from 'node:util';
import { answer, quick, thorough } from './measure.ts';
import type { Question } from './question.ts';
import { allQuestions } from './questions.ts';
import { tableOf } from './table.ts';

const help = `Usage: npm run bench:micro -- [options] [question…]

  --quick      a few milliseconds each: whether everything works, not how fast
  -h, --help   print this help

Questions:
${allQuestions.map(({ name, sentence }) => `  ${name.padEnd(16)} ${sentence}\n`).join('')}`;

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench:micro: ${(error as Error).message}\n`);
  process.exitCode = 1;
}

function main(words: readonly string[]): number {
  const request = parse(words);
  if (typeof request === 'string') {
    process.stderr.write(`bench:micro: ${request}\n`);
    return 2;
  }
  if (request.help) process.stdout.write(help);
  else for (const question of request.questions) print(question, request.quick ? quick : thorough);
  return 0;
}

function print(question: Question, effort: typeof quick): void {
  process.stdout.write(`${question.name}: ${question.sentence}\n${tableOf(answer(question, effort))}\n`);
}

interface Request {
  readonly help: boolean;
  readonly quick: boolean;
  readonly questions: readonly Question[];
}

/** What is asked for, or what is wrong with it. */
function parse(words: readonly string[]): Request | string {
  const options = { quick: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } } as const;
  try {
    const { values, positionals } = parseArgs({ args: [...words], allowPositionals: true, options });
    const unknown = positionals.find((name) => !allQuestions.some((question) => question.name === name));
    if (unknown !== undefined) return `${JSON.stringify(unknown)} is no question: there is ${names()}`;
    const asked = ({ name }: Question) => positionals.length === 0 || positionals.includes(name);
    return {
      help: values.help === true,
      quick: values.quick === true,
      questions: allQuestions.filter(asked),
    };
  } catch (error) {
    return (error as Error).message;
  }
}

function names(): string {
  return allQuestions.map(({ name }) => name).join(', ');
}
