/** HAProxy in TCP mode. It copies through 16 KiB buffers unless it is told to splice. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { versionOf } from './installed.ts';
import { bracketed, type Publication, type Subject, startProgram } from './subject.ts';

interface Tuning {
  readonly global: readonly string[];
  readonly defaults: readonly string[];
}

export const haproxy: Subject = makeHaproxy('haproxy', 'HAProxy', 'defaults, no logs', {
  global: [],
  defaults: [],
});

export const haproxySplice: Subject = makeHaproxy(
  'haproxy-splice',
  'HAProxy, splice',
  'tuned: nbthread 1, option splice-request and splice-response, pipes of 256 KiB, smart accept and connect',
  {
    global: ['nbthread 1', 'tune.pipesize 262144'],
    defaults: [
      'option splice-request',
      'option splice-response',
      'option tcp-smart-accept',
      'option tcp-smart-connect',
    ],
  },
);

function makeHaproxy(name: string, title: string, settings: string, tuning: Tuning): Subject {
  return {
    name,
    title,
    kind: 'peer',
    settings,
    version: () => versionOf(['haproxy', '-v'], /version (\S+)/, 'haproxy'),
    cannot: ({ protocol }) => (protocol === 'udp' ? 'HAProxy relays no UDP' : undefined),
    start: (stage, publications) => {
      const path = join(stage.scratch, 'haproxy.cfg');
      writeFileSync(path, configuration(tuning, publications));
      return startProgram(stage, ['haproxy', '-db', '-f', path], publications);
    },
  };
}

function configuration(tuning: Tuning, publications: readonly Publication[]): string {
  const relays = publications.map(
    ({ host, container }) => `listen port-${host.port}-${host.address.includes(':') ? 'v6' : 'v4'}
  bind ${bracketed(host.address)}:${host.port}
  server container ${bracketed(container.address)}:${container.port}`,
  );
  // No maxconn: HAProxy derives it from the open file limit.
  return `global
  ${tuning.global.join('\n  ')}
defaults
  mode tcp
  backlog 4096
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  ${tuning.defaults.join('\n  ')}
${relays.join('\n')}
`;
}
