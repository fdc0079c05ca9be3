/** A plan as a shell script that an operator can read, keep and run instead of `dualport transparent up`. Pure. */
import { type Step, stepsTo } from './change.ts';
import type { Plan } from './plan.ts';
import type { PlaceNames, Present } from './present.ts';
import { type Command, commandText } from './system.ts';

const nothing: Present = { rules: [], routes: [], marking: undefined, foreign: [] };

/** From a kernel without anything of ours. */
export function setupScript(plan: Plan, names: PlaceNames): string {
  const steps = stepsTo(plan, nothing, names);
  return script(
    'what transparent and pseudo connections need to find back',
    plan,
    steps.map(({ command, why }) => ({ command, why })),
  );
}

/** The way back from {@link setupScript}. */
export function undoScript(plan: Plan, names: PlaceNames): string {
  const steps = stepsTo(plan, nothing, names);
  return script('removes what dualport transparent print sets up', plan, undone(steps));
}

interface Line {
  readonly command: Command;
  readonly why: string;
}

function undone(steps: readonly Step[]): readonly Line[] {
  return steps.map(({ undo, why }) => ({ command: undo, why: `no longer: ${why}` })).reverse();
}

function script(title: string, { remarks }: Plan, lines: readonly Line[]): string {
  const head = ['#!/bin/sh', `# dualport: ${title}`, ...remarks.map((remark) => `# Note: ${remark}`)];
  if (lines.length === 0) return [...head, '# Nothing has to be set up.', ''].join('\n');
  return [...head, 'set -e', ...commented(lines), ''].join('\n');
}

/** A reason stands once above the commands that share it. */
function commented(lines: readonly Line[]): readonly string[] {
  return lines.flatMap(({ command, why }, i) => [
    ...(lines[i - 1]?.why === why ? [] : ['', `# ${why}`]),
    scriptText(command),
  ]);
}

/** A command as it is typed into a shell, with what it reads. */
export function scriptText(command: Command): string {
  const { input } = command;
  return input === undefined ? commandText(command) : `${commandText(command)} <<'END'\n${input}END`;
}
