/** RELIABILITY.md: what was seen of whom. A cell says what was seen in this run, or that nothing was. */
import os from 'node:os';
import type { Row } from './row.ts';
import type { Subject } from './subject.ts';

export type Cell =
  | { readonly state: 'kept'; readonly figure: string }
  | { readonly state: 'broken'; readonly seen: string }
  | { readonly state: 'silent'; readonly reason: string };

export interface Column {
  readonly subject: Subject;
  version: string;
  readonly cells: Map<string, Cell>;
}

export interface Table {
  readonly rows: readonly Row[];
  readonly columns: readonly Column[];
  readonly startedAt: Date;
  readonly machine: string;
}

const groups: Readonly<Record<string, string>> = {
  A: 'TCP',
  B: 'PROXY protocol',
  C: 'UDP',
  D: 'Listening and addresses',
  E: 'Start, reload, end',
  F: 'Docker',
  G: 'State, log, leaks',
};

const isOurs = ({ subject }: Column) => subject.name === 'linux' || subject.name === 'portable';

export interface Tally {
  /** It has the same form in every release. */
  readonly line: string;
  /** What dualport has not kept, or was not asked. */
  readonly failures: readonly string[];
  /** Others that were not asked. */
  readonly absent: readonly string[];
}

export function tally({ rows, columns }: Table): Tally {
  const ours = columns.filter(isOurs);
  const notRun = (some: readonly Column[]) =>
    some.flatMap(({ subject, version, cells }) =>
      cells.size === rows.length
        ? []
        : [`${subject.name}: ${rows.length - cells.size} rows not run (${version})`],
    );
  const failures = notRun(ours);
  const absent = notRun(columns.filter((column) => !isOurs(column)));
  let [passed, skipped] = [0, 0];
  for (const row of rows) {
    const states = ours.map((column) => stateOf(row, column));
    for (const [i, state] of states.entries())
      if (state === 'broken' || state === 'silent')
        failures.push(`${ours[i]?.subject.name}: ${row.id} ${state}`);
    if (states.includes('not run') || states.includes('silent')) skipped++;
    else if (states.length > 0 && !states.includes('broken')) passed++;
  }
  const words = [
    `fault rows   ${`${passed}/${rows.length} passed`.padEnd(15)}${skipped} skipped`.padEnd(43),
    `engines ${ours.map(({ subject }) => subject.name).join(',')}`,
    `node ${process.versions.node}`,
  ];
  return { line: words.join('   '), failures, absent };
}

/** A row that an engine has no part in, by a decision that is documented, is none that was left out. */
function stateOf(row: Row, { subject, cells }: Column): Cell['state'] | 'not run' | 'excluded' {
  if (row.silent?.[subject.name] !== undefined) return 'excluded';
  return cells.get(row.id)?.state ?? 'not run';
}

export function describeMachine(): string {
  const [cpu] = os.cpus();
  const memory = (os.totalmem() / 1024 ** 3).toFixed(1);
  return `${cpu?.model.trim()}, ${os.availableParallelism()} CPUs, ${memory} GiB, Linux ${os.release()}, Node ${process.versions.node}`;
}

export function render(table: Table): string {
  const { columns, startedAt, machine } = table;
  const reasons = new Reasons();
  const tables = Object.entries(groups).map(([letter, title]) => groupTable(table, letter, title, reasons));
  return `# Reliability

What becomes of relays under faults and abuse: the same ${table.rows.length} rows, by the same program, against dualport's two engines and
the three programs it is most often compared with. Written by \`npm run faults\`; nothing here is edited by hand.

\`\`\`
${tally(table).line}
\`\`\`

${startedAt.toISOString().slice(0, 10)}; ${machine}.

| program | version | what it was given |
| --- | --- | --- |
${columns.map(({ subject, version }) => `| ${subject.title} | ${cellText(version)} | ${cellText(subject.settings)} |`).join('\n')}

## How to read it

Each row starts the program anew, with what the row needs set in the program's own words, in a network namespace of its own;
does to it what the row says; takes everything away again; and then asks for the same of everybody: the same process, sockets
and flows as before, a clean exchange on every port within 100 ms, and of dualport no unhandled error and nothing on its standard error.

* **✓** the promise was kept, with the figure that was measured. **✗** it was not, with what was seen instead.
* **–** the program has no part in it; the number leads to the reason below. **not run**: nothing was seen, so nothing is said.
* The promises are dualport's. A program that answers otherwise may do so by design: whoever refuses a header that comes in two
  pieces (B6) keeps to the PROXY protocol's specification, and an empty answer instead of a reset (A1, A7) is what many
  programs give. The row says what was seen, and the reader whether it matters.
* One run on one machine shows that something can be kept, not that it always is.

${tables.join('\n\n')}

## No part

${reasons.list()}

## Where it comes from

\`test/faults/rows\` has the rows. Containers are followed beside a real dockerd in
\`test/e2e/docker-labels.test.ts\`, and beside one that is made up in the rows F. \`npm run faults -- --rows A1,C14 --subjects linux,nginx\`
plays some of them.
`;
}

function groupTable({ rows, columns }: Table, letter: string, title: string, reasons: Reasons): string {
  const titles = columns.map(({ subject }) => subject.title);
  const lines = rows
    .filter(({ id }) => id.startsWith(letter))
    .map(({ id, promise }) => {
      const cells = columns.map(({ cells }) => shown(cells.get(id), reasons));
      return `| ${[id, cellText(promise), ...cells].join(' | ')} |`;
    });
  return [
    `## ${title}\n`,
    `| | promise | ${titles.join(' | ')} |`,
    `| --- | --- |${titles.map(() => ' --- |').join('')}`,
    ...lines,
  ].join('\n');
}

function shown(cell: Cell | undefined, reasons: Reasons): string {
  switch (cell?.state) {
    case undefined:
      return 'not run';
    case 'kept':
      return cell.figure === '' ? '✓' : `✓ ${cellText(cell.figure)}`;
    case 'broken':
      return `✗ ${cellText(cell.seen)}`;
    case 'silent':
      return `– ${reasons.number(cell.reason)}`;
  }
}

/** Text of programs, which may have anything in it. */
function cellText(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}]/gu, '?')
    .replace(/[\\|<>*_`[\]]/g, '\\$&')
    .slice(0, 240);
}

class Reasons {
  readonly #texts: string[] = [];

  number(text: string): number {
    const known = this.#texts.indexOf(text);
    return known >= 0 ? known + 1 : this.#texts.push(text);
  }

  list(): string {
    return this.#texts.map((text, i) => `${i + 1}. ${cellText(text)}`).join('\n');
  }
}
