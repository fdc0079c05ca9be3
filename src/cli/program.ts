/**
 * The command line: commander's wiring, made from the option table. What an option means and how it is
 * checked stands in config/; here is only which command takes it and how help looks.
 */
import { Argument, Command, CommanderError, Help, Option } from 'commander';
import { suggestion } from '../config/nearest.ts';
import { flagOf, type OptionKey, optionKeys, options } from '../config/options.ts';
import type { Flags } from '../config/sources.ts';
import { DualportError, exitStatus } from '../errors.ts';
import { check } from './check.ts';
import { demo } from './demo.ts';
import { type InstallFlags, install, uninstall } from './install.ts';
import { pseudo } from './pseudo.ts';
import { serve } from './serve.ts';
import { status } from './status.ts';
import { transparentCheck, transparentDown, transparentPrint, transparentUp } from './transparent.ts';
import { version } from './version.ts';

const examples = `
Examples:
  dualport -p '[::]:8080:80' --to 172.17.0.2         an IPv4-only container, reachable over IPv6
  dualport -p 8080:80 -t 172.17.0.2 -t fd00::2       both families, each client to its own
  dualport -p 443:8443 --source proxy-v2             a sidecar that passes the client's address on
  dualport -p 53:53/udp -p 53:53 -t 10.0.0.53        UDP and TCP
  dualport -c /etc/dualport.yaml                     rules from a file; SIGHUP reads it again
  dualport check -c /etc/dualport.yaml               what would run, without running it
  dualport --docker-proxy-socket                     the ports of dockerd's launchers (dualport install docker-proxy)

Every option is also an environment variable (--connect-timeout is DUALPORT_CONNECT_TIMEOUT) and a key of the
file (connectTimeout). A flag wins over a variable, a variable over the file.
Exit status: 0 done, 1 failure, 2 usage, 69 port in use, 75 temporary, 77 privilege, 78 configuration.`;

/** Runs the command line; the result is the exit status. Refusals are thrown as DualportError. */
export async function run(argv: readonly string[]): Promise<number> {
  refuseUnknownCommand(argv[0]);
  let result: Promise<number> | undefined;
  const program = makeProgram((running) => {
    result = running;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return exitStatus.done;
    // Help that was printed for want of a command has said everything.
    if (error.code === 'commander.help') return exitStatus.usage;
    throw misused(error);
  }
  return (await result) ?? exitStatus.done;
}

/** commander's words, in the form of all others: one line, and nothing of the terminal's in it. */
function misused({ message }: CommanderError): DualportError {
  const line = message.replace(/^error: /, '').replaceAll(/[\p{Cc}\s]+/gu, ' ');
  return new DualportError('USAGE', `${line}; dualport --help has every option, with examples`);
}

const commands = {
  serve: 'publish the ports and relay until SIGTERM (the default command)',
  check: 'validate a configuration and print the effective rules',
  status: 'print what a running dualport does, from its --admin address',
  install: 'have dockerd start the launcher instead of docker-proxy (install docker-proxy)',
  uninstall: 'have dockerd start its own docker-proxy again',
  pseudo: 'print whom a pseudo address stands for, or which ones a client has',
  transparent: 'show, make, remove or prove what source transparent and pseudo need of the kernel',
  demo: 'publish a small IPv4-only HTTP program on [::] and show what it sees',
  help: 'print help for a command',
} as const;

/** commander would hand a mistyped command to the default one, as an argument too many. */
function refuseUnknownCommand(word: string | undefined): void {
  if (word === undefined || word.startsWith('-') || Object.hasOwn(commands, word)) return;
  const known = Object.keys(commands);
  const message = `${JSON.stringify(word)} is not a command: there is ${known.join(', ')}${suggestion(word, known)}`;
  throw new DualportError('USAGE', message);
}

function makeProgram(started: (running: Promise<number>) => void): Command {
  const program = new Command('dualport')
    .description("Publishes a program's ports on IPv6 and IPv4 at once, and keeps the client's address.")
    .usage(
      '[serve] [options]\n       dualport check|status|transparent|pseudo|install|uninstall|demo [options]',
    )
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', examples)
    .enablePositionalOptions();
  const serving = withOptions(addCommand(program, 'serve', true)).addHelpText('after', examples);
  serving.action((flags: Flags) => started(serve(flags)));
  withOptions(addCommand(program, 'check'))
    .option('--json', 'as JSON instead of a table')
    .action((flags: Flags & { json?: boolean }) => started(check(flags, flags.json === true)));
  addCommand(program, 'status')
    .addOption(optionFor('admin'))
    .option('--json', 'as JSON instead of a table')
    .action((flags: Flags & { json?: boolean }) => started(status(flags, flags.json === true)));
  for (const [name, act] of [
    ['install', install],
    ['uninstall', uninstall],
  ] as const) {
    addCommand(program, name)
      .addArgument(
        new Argument('<what>', 'docker-proxy: the program that dockerd starts for each port').choices([
          'docker-proxy',
        ]),
      )
      .option('--dry-run', 'show what would be changed, and change nothing')
      .option('--daemon-json <path>', "dockerd's configuration (default: the one the running dockerd reads)")
      .option('--launcher <path>', 'the program (default: the one of this package)')
      .action((_what: string, flags: InstallFlags) => started(act(flags)));
  }
  const pseudoOptions = ['config', 'stateDir', 'pseudoV4', 'pseudoV6', 'pseudoUnit'] as const;
  pseudoOptions
    .reduce((command, key) => command.addOption(optionFor(key)), addCommand(program, 'pseudo'))
    .argument('<address>', 'a pseudo address, or that of a client')
    .option('--json', 'as JSON instead of a sentence')
    .action((address: string, flags: Flags & { json?: boolean }) =>
      started(pseudo(address, flags, flags.json === true)),
    );
  addTransparent(program, started);
  addCommand(program, 'demo')
    .argument('[port]', 'the port to publish', '8080')
    .action((port: string) => started(demo(port)));
  // `serve` need not be written, so its options are those of the program, too.
  const standard = new Help();
  const withServing = [...serving.options, ...standard.visibleOptions(program)];
  const visibleOptions = (command: Command) =>
    command.name() === program.name() ? withServing : standard.visibleOptions(command);
  return withHelp(program).configureHelp({ ...helpStyle, visibleOptions });
}

function addTransparent(program: Command, started: (running: Promise<number>) => void): void {
  const transparent = addCommand(program, 'transparent');
  const add = (name: string, description: string) =>
    withOptions(withHelp(transparent.command(name).description(description)));
  add('print', 'print the commands, as a script that can be read and run')
    .option('--undo', 'the commands that undo them')
    .action((flags: Flags & { undo?: boolean }) => started(transparentPrint(flags, flags.undo === true)));
  add('up', 'run them; all or nothing, and nothing that is there already').action((flags: Flags) =>
    started(transparentUp(flags)),
  );
  add('down', 'remove what dualport has made there, and nothing else').action((flags: Flags) =>
    started(transparentDown(flags)),
  );
  const from = new Option('--from <address>', 'a client to call the upstreams as; repeatable').argParser(
    (address: string, before: string[] | undefined) => [...(before ?? []), address],
  );
  add(
    'check',
    'call each upstream as a client elsewhere, and say what is to blame where no answer comes back',
  )
    .addOption(from)
    .option('--json', 'as JSON instead of lines')
    .action((flags: Flags & { from?: string[]; json?: boolean }) =>
      started(transparentCheck(flags, flags.from ?? [], flags.json === true)),
    );
}

const helpStyle = { helpWidth: 110 };

function addCommand(program: Command, name: keyof typeof commands, isDefault = false): Command {
  return withHelp(program.command(name, { isDefault }).description(commands[name]));
}

function withHelp(command: Command): Command {
  return command
    .configureHelp(helpStyle)
    .configureOutput({ outputError: () => {} })
    .exitOverride();
}

function withOptions(command: Command): Command {
  for (const key of optionKeys) command.addOption(optionFor(key));
  return command;
}

/** Values stay text: the table parses them, whether they come from a flag, a variable or the file. */
function optionFor(key: OptionKey): Option {
  const { short, placeholder, list, help, group, defaultText } = options[key];
  const names = [...(short === undefined ? [] : [`-${short}`]), flagOf(key)].join(', ');
  const note = placeholder === undefined ? '' : ` (default: ${defaultText})`;
  // A switch may be turned off where a variable or the file has turned it on.
  const option = new Option(`${names} ${placeholder ?? '[true|false]'}`, help + note);
  if (list) option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
  return option.helpGroup(`${group}:`);
}
