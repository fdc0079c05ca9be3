/** Docker's own userland proxy: a process for each published port and family. It has no settings. */
import { packagedVersion } from './installed.ts';
import { type Subject, startEach } from './subject.ts';

const file = '/usr/sbin/docker-proxy';

export const dockerProxy: Subject = {
  name: 'docker-proxy',
  title: 'docker-proxy',
  kind: 'peer',
  settings: 'has none',
  version: () => packagedVersion('docker.io', file),
  start: (stage, publications) =>
    startEach(stage, publications, ({ protocol, host, container }) => [
      ...[file, '-proto', protocol, '-host-ip', host.address, '-host-port', `${host.port}`],
      ...['-container-ip', container.address, '-container-port', `${container.port}`],
    ]),
};
