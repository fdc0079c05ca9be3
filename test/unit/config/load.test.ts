import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { defaultBind, defaultPorts } from '../../../src/config/docker-options.ts';
import { allowsTransparent, type Config, loadConfig, loadPseudoConfig } from '../../../src/config/load.ts';
import { optionDefaults, ruleKeys } from '../../../src/config/options.ts';
import type { Environment, Flags } from '../../../src/config/sources.ts';
import { formatTarget } from '../../../src/config/target.ts';
import { DualportError, type ErrorCode } from '../../../src/errors.ts';
import { formatCidr, parseCidr } from '../../../src/net/cidr.ts';

/** Loads with a file of this text, named d.yaml by a flag unless the flags name another. */
function load(flags: Flags, env: Environment = {}, fileText?: string): Config {
  if (fileText === undefined) return loadConfig({ flags, env });
  const readFile = () => new TextEncoder().encode(fileText);
  return loadConfig({ flags: { config: 'd.yaml', ...flags }, env, readFile });
}

function refuses(code: ErrorCode, exit: number, make: () => unknown, why: RegExp): void {
  assert.throws(make, (error) => {
    assert.ok(error instanceof DualportError, String(error));
    assert.equal(error.code, code, error.message);
    assert.equal(error.exitStatus, exit);
    assert.match(error.message, why);
    return true;
  });
}

function names(config: Config): readonly string[] {
  return config.rules.map((rule) => rule.name);
}

const publish = { publish: ['8080:80'] };
const file = `
logLevel: error
drainTimeout: 1s
accessLog: true
defaults: { source: proxy-v2, to: 10.0.0.1, udpTimeout: 1s }
publish:
  - { ports: 1001:80, to: 10.0.0.2 }
  - { ports: [1002:80, 1003:80/udp], family: v4 }
`;

test('what nobody wrote has its default, and says so', () => {
  const config = load(publish);
  const { rules, origins, ruleDefaults, hidesClients, ...process } = config;
  assert.equal(rules.length, 1);
  assert.deepEqual(hidesClients, ['8080:80/tcp']);
  assert.deepEqual(
    ruleDefaults,
    Object.fromEntries(ruleKeys.map((key) => [key, optionDefaults[key]])),
    'of rules that come from elsewhere',
  );
  assert.deepEqual(process, {
    docker: undefined,
    launchers: undefined,
    labels: { mirror: false, ports: defaultPorts, bind: defaultBind, maxPorts: 32 },
    engine: 'auto',
    threads: 1,
    maxFlows: undefined,
    drainTimeoutMs: 8000,
    accessLog: false,
    logLevel: 'info',
    logFormat: 'auto',
    admin: undefined,
    pseudo: {
      v4: parseCidr('240.0.0.0/4'),
      v6: parseCidr('fd5f:bf90:309::/96'),
      unitBits: 64,
      stateDir: '/var/lib/dualport',
    },
    transparent: {
      setup: false,
      interfaces: [],
      table: 'dualport',
      mark: { value: 0x1000, mask: 0x1000 },
      priority: 60,
      routeTable: 24_000,
    },
    transparentNetworks: [],
    file: undefined,
  });
  const { publish: publishOrigin, ...others } = origins;
  assert.equal(publishOrigin, 'flag');
  assert.deepEqual([...new Set(Object.values(others))], ['default']);
});

test('rules that are not written have the defaults of the file, which variables and flags overrule', () => {
  const { ruleDefaults } = load({ source: 'none' }, { DUALPORT_UDP_TIMEOUT: '2s' }, file);
  assert.equal(ruleDefaults.source, 'none');
  assert.equal(ruleDefaults.udpTimeout, 2000);
  assert.deepEqual(ruleDefaults.to?.map(formatTarget), ['10.0.0.1']);
});

test('where launchers bring their ports none need be written', () => {
  const { rules, docker, launchers } = load({ dockerProxySocket: true });
  assert.deepEqual(rules, []);
  assert.equal(docker, undefined, 'labels are not followed for it');
  const engine = { kind: 'socket', path: '/var/run/docker.sock' };
  assert.deepEqual(launchers, { socket: '/run/dualport/docker-proxy.sock', engine });
  assert.throws(() => load({}), /there is no port to publish/);
});

test('a file gives process options, defaults of rules and their own values', () => {
  const config = load({}, {}, file);
  assert.deepEqual(names(config), ['1001:80/tcp', '1002:80/tcp', '1003:80/udp']);
  assert.deepEqual(
    config.rules.map((rule) => rule.to.map(formatTarget)),
    [['10.0.0.2'], ['10.0.0.1'], ['10.0.0.1']],
  );
  assert.deepEqual(
    config.rules.map((rule) => [rule.source, rule.family, rule.timeouts.udpMs]),
    [
      ['proxy-v2', 'same', 1000],
      ['proxy-v2', 'v4', 1000],
      ['proxy-v2', 'v4', 1000],
    ],
  );
  assert.deepEqual([config.logLevel, config.drainTimeoutMs, config.accessLog], ['error', 1000, true]);
  assert.equal(config.file, 'd.yaml');
});

test('a variable wins over the file, and over an entry of it', () => {
  const config = load(
    {},
    { DUALPORT_LOG_LEVEL: 'warn', DUALPORT_TO: '10.0.0.3', DUALPORT_ACCESS_LOG: '0' },
    file,
  );
  assert.equal(config.logLevel, 'warn');
  assert.equal(config.accessLog, false);
  for (const rule of config.rules) assert.deepEqual(rule.to.map(formatTarget), ['10.0.0.3']);
});

test('a flag wins over a variable and the file', () => {
  const config = load(
    { logLevel: 'debug', to: ['10.0.0.4', 'fd00::4'], accessLog: false },
    { DUALPORT_LOG_LEVEL: 'warn', DUALPORT_TO: '10.0.0.3', DUALPORT_ACCESS_LOG: '1' },
    file,
  );
  assert.equal(config.logLevel, 'debug');
  assert.equal(config.accessLog, false);
  for (const rule of config.rules) assert.deepEqual(rule.to.map(formatTarget), ['10.0.0.4', 'fd00::4']);
});

test('ports of the strongest source replace those of the others', () => {
  const env = { DUALPORT_PUBLISH: '2001:80, 2002:80\n2003:80/udp' };
  assert.deepEqual(names(load({}, env, file)), ['2001:80/tcp', '2002:80/tcp', '2003:80/udp']);
  assert.deepEqual(names(load({ publish: ['3001:80', '3002:80'] }, env, file)), [
    '3001:80/tcp',
    '3002:80/tcp',
  ]);
});

test('defaults of the file hold for ports of flags, values of its entries do not', () => {
  const [rule] = load(publish, {}, file).rules;
  assert.deepEqual(rule?.to.map(formatTarget), ['10.0.0.1']);
  assert.equal(rule?.source, 'proxy-v2');
});

test('every option says who had the last word', () => {
  const { origins } = load(
    { logLevel: 'debug' },
    { DUALPORT_LOG_LEVEL: 'warn', DUALPORT_ENGINE: 'portable' },
    file,
  );
  assert.deepEqual(
    {
      logLevel: origins.logLevel,
      engine: origins.engine,
      drainTimeout: origins.drainTimeout,
      source: origins.source,
      family: origins.family,
      publish: origins.publish,
      config: origins.config,
      allow: origins.allow,
    },
    {
      logLevel: 'flag',
      engine: 'environment',
      drainTimeout: 'file',
      source: 'file',
      family: 'file',
      publish: 'file',
      config: 'flag',
      allow: 'default',
    },
  );
  const replaced = load({}, { DUALPORT_PUBLISH: '80' }, file).origins;
  assert.deepEqual([replaced.publish, replaced.source, replaced.family], ['environment', 'file', 'default']);
});

test('the file may be named by a variable, and is read from the directory given', () => {
  const paths: string[] = [];
  const readFile = (path: string) => {
    paths.push(path);
    return new TextEncoder().encode(file);
  };
  const env = { DUALPORT_CONFIG: 'conf/d.yaml' };
  assert.equal(loadConfig({ flags: {}, env, readFile, cwd: '/etc' }).file, 'conf/d.yaml');
  loadConfig({ flags: { config: '/x/d.yaml' }, env, readFile, cwd: '/etc' });
  assert.deepEqual(paths, ['/etc/conf/d.yaml', '/x/d.yaml']);
});

test('a configuration is frozen to the bottom', () => {
  const config = load({ ...publish, allow: ['10.0.0.0/8'], admin: ':9090' });
  const [rule] = config.rules;
  for (const value of [
    config,
    config.rules,
    config.origins,
    config.admin,
    rule,
    rule?.allow,
    rule?.allow[0],
  ]) {
    assert.ok(Object.isFrozen(value));
  }
  assert.throws(() => Object.assign(config, { logLevel: 'debug' }), TypeError);
});

test('an empty variable was not set, and neither was a flag that is undefined', () => {
  const config = load({ ...publish, to: undefined }, { DUALPORT_TO: '', DUALPORT_LOG_LEVEL: '' });
  assert.equal(config.origins.to, 'default');
  assert.equal(config.origins.logLevel, 'default');
});

test('flags that are no options are somebody else’s, inherited ones nobody’s', () => {
  assert.equal(load({ ...publish, json: true }).rules.length, 1);
  const inherited = Object.assign(Object.create({ logLevel: 'loud' }), publish);
  assert.equal(load(inherited).logLevel, 'info');
});

test('with --docker, or --docker-mirror, no port of its own is needed', () => {
  const engine = { kind: 'socket', path: '/var/run/docker.sock' };
  for (const flags of [{ docker: true }, { dockerMirror: true }, { docker: 'true', dockerMirror: 'yes' }]) {
    const config = load(flags);
    assert.deepEqual([config.rules, config.docker], [[], engine]);
  }
  assert.equal(load({}, {}, 'docker: true').docker?.kind, 'socket');
  refuses('USAGE', 2, () => load({ docker: false }), /no port to publish/);
  refuses(
    'USAGE',
    2,
    () => load({ dockerEngine: '/run/d.sock' }),
    /or follow containers with --docker, or serve dockerd with --docker-proxy-socket$/,
  );
});

test('the engine is that of --docker-engine, else of DOCKER_HOST, which counts for nothing without --docker', () => {
  const docker = { docker: true };
  const from = (env: Environment, flags: Flags = docker) => load(flags, env).docker;
  assert.deepEqual(from({ DOCKER_HOST: 'unix:///run/user/1000/docker.sock' }), {
    kind: 'socket',
    path: '/run/user/1000/docker.sock',
  });
  assert.deepEqual(from({ DOCKER_HOST: 'tcp://proxy:2375' }), { kind: 'tcp', host: 'proxy', port: 2375 });
  for (const usual of ['', 'unix://']) {
    assert.deepEqual(from({ DOCKER_HOST: usual }), { kind: 'socket', path: '/var/run/docker.sock' });
  }
  const both = { ...docker, dockerEngine: '/run/d.sock' };
  assert.deepEqual(from({ DOCKER_HOST: 'ssh://host' }, both), { kind: 'socket', path: '/run/d.sock' });
  assert.equal(load(publish, { DOCKER_HOST: 'ssh://host' }).docker, undefined);
  refuses(
    'USAGE',
    2,
    () => from({ DOCKER_HOST: 'ssh://host' }),
    /^DOCKER_HOST: found "ssh:\/\/host"; allowed: unix:\/\/\/path/,
  );
});

test('rules from elsewhere start from flags, variables and defaults of the file, not from its entries', () => {
  const text = `docker: true\ndefaults: { allow: 10.0.0.0/8, source: proxy-v1 }\npublish: [{ ports: '1:1', family: v4, to: 10.0.0.1 }]`;
  const { ruleDefaults } = load({ source: 'proxy-v2' }, { DUALPORT_IDLE_TIMEOUT: '7s' }, text);
  const { source, idleTimeout, family, allow } = ruleDefaults;
  assert.deepEqual([source, idleTimeout, family, allow.length], ['proxy-v2', 7000, 'same', 1]);
});

test('one socket file for --admin and for launchers is refused, however it is spelled', () => {
  const paths = (admin: string, dockerProxySocket: string) => ({ admin, dockerProxySocket });
  for (const flags of [paths('/run/d.sock', '/run/d.sock'), paths('/run/x/../d.sock', '/run//d.sock')])
    refuses(
      'PORT_CONFLICT',
      78,
      () => load(flags),
      /^--admin and --docker-proxy-socket would both listen on \/run\/\/?d\.sock; give one of them another path$/,
    );
  const inRun = { flags: paths('./d.sock', '/run/d.sock'), env: {}, cwd: '/run' };
  refuses('PORT_CONFLICT', 78, () => loadConfig(inRun), /would both listen on \/run\/d\.sock/);
  assert.equal(loadConfig({ ...inRun, cwd: '/tmp' }).launchers?.socket, '/run/d.sock');
  assert.equal(load(paths(':9090', '/run/d.sock')).launchers?.socket, '/run/d.sock');
});

test('no port at all is answered with an example', () => {
  refuses(
    'USAGE',
    2,
    () => load({}),
    /^there is no port to publish; give one with --publish, as in dualport -p/,
  );
  for (const text of ['publish: []', 'logLevel: info'])
    refuses('CONFIG_VALUE', 78, () => load({}, {}, text), /^d\.yaml: there is no port to publish; give one /);
});

test('an error from a flag or a variable names it and is an error of usage', () => {
  refuses(
    'USAGE',
    2,
    () => load({ ...publish, logLevel: 'loud' }),
    /^--log-level: found "loud"; allowed: error,/,
  );
  refuses('PORT_SPEC', 2, () => load({ publish: ['80:'] }), /^--publish: "80:" is not a port to publish/);
  refuses('ADDRESS', 2, () => load({ ...publish, to: ['a b!'] }), /^--to: "b!" is not a host/);
  refuses(
    'ADDRESS',
    2,
    () => load(publish, { DUALPORT_DENY: 'x/8' }),
    /^DUALPORT_DENY: "x\/8" is not an address/,
  );
  refuses('USAGE', 2, () => load(publish, { DUALPORT_UDP_TIMEOUT: 'x' }), /^DUALPORT_UDP_TIMEOUT: found "x"/);
  refuses('PORT_SPEC', 2, () => load({}, { DUALPORT_PUBLISH: 'x' }), /^DUALPORT_PUBLISH: "x" is not a port/);
});

test('an error from the file names line and column, even when a flag overrides the value', () => {
  const text = 'logLevel: loud\npublish:\n  - ports: 80\n';
  const why = /^d\.yaml:1:11: logLevel: found "loud"/;
  refuses('CONFIG_VALUE', 78, () => load({ logLevel: 'info' }, {}, text), why);
});

test('rules that do not go together are named with their places', () => {
  const twice = 'publish:\n  - ports: 80:80\n  - ports: ["81:81", "[::]:80:82"]\n';
  refuses(
    'PORT_CONFLICT',
    78,
    () => load({ to: 'app' }, {}, twice),
    /^"\[::\]:80:82\/tcp" \(d\.yaml:3:22: publish\[1\]\.ports\[1\]\) and "80:80\/tcp" \(d\.yaml:2:12: publish\[0\]/,
  );
  refuses('PORT_CONFLICT', 78, () => load({ publish: ['80:80', '80:81'], to: 'app' }), /\(--publish\)/);
  refuses('SELF_CONNECT', 78, () => load({}, { DUALPORT_PUBLISH: '80:80' }), /\(DUALPORT_PUBLISH\)/);
});

test('the port of --admin is not published, where both would listen on it', () => {
  const admin = (address: string, ...publish: readonly string[]) =>
    load({ publish, to: 'app', admin: address });
  const why =
    /^"0\.0\.0\.0:9090:80\/tcp" and --admin would both listen on tcp port 9090; give one of them another port$/;
  refuses('PORT_CONFLICT', 78, () => admin(':9090', '0.0.0.0:9090:80'), why);
  refuses('PORT_CONFLICT', 78, () => admin(':9090', '[::1]:9090:80'), /and --admin/);
  refuses('PORT_CONFLICT', 78, () => admin('0.0.0.0:9090', '127.0.0.1:9090:80'), /and --admin/);
  refuses('PORT_CONFLICT', 78, () => admin('[::1]:9090', '80:80', '9080-9099:9080-9099'), /and --admin/);
  const beside = ['127.0.0.2:9090:80', '9090:80/udp', '9091:80', '9090-9092:81', '82', '[fd00::1]:9090:83'];
  assert.equal(admin(':9090', ...beside).rules.length, beside.length);
  assert.equal(admin('127.0.0.1:9090', '[::]:9090:80').rules.length, 1);
  assert.equal(admin('/run/admin.sock', '9090:80').rules.length, 1);
});

test('PROXY version 1 with UDP is an error of the source the port is from', () => {
  const text = 'defaults: { source: proxy-v1, to: app }\npublish:\n  - ports: 53:53/udp\n';
  refuses(
    'CONFIG_VALUE',
    78,
    () => load({}, {}, text),
    /^d\.yaml:3:12: publish\[0\]\.ports: 53:53\/udp: found source/,
  );
  const flags = { publish: ['53:53/udp'], source: 'proxy-v1', to: 'app' };
  refuses('USAGE', 2, () => load(flags), /^--publish: 53:53\/udp: found source proxy-v1.*proxy-v2/);
});

test('an engine that cannot be transparent is refused with the rule that is', () => {
  const text = 'publish:\n  - { ports: 80, to: app }\n  - { ports: 81, to: app, source: transparent }\n';
  const why =
    /^81\/tcp: found source transparent and engine portable, .*; use engine linux, or source pseudo$/;
  refuses('ENGINE', 78, () => load({ engine: 'portable' }, {}, text), why);
  for (const engine of ['linux', 'auto']) {
    assert.deepEqual(
      load({ engine }, {}, text).rules.map(({ source }) => source),
      ['none', 'transparent'],
    );
  }
  assert.equal(load({ ...publish, engine: 'portable', source: 'pseudo' }).rules[0]?.source, 'pseudo');
});

test('state is kept where a flag says, else where systemd does, else in /var/lib', () => {
  const dir = (flags: Flags, env: Environment) => load({ ...publish, ...flags }, env).pseudo.stateDir;
  const systemd = { STATE_DIRECTORY: '/var/lib/a:/var/lib/b' };
  assert.equal(dir({ stateDir: '/srv/x' }, systemd), '/srv/x');
  assert.equal(dir({}, { ...systemd, DUALPORT_STATE_DIR: '/srv/y' }), '/srv/y');
  assert.equal(dir({}, systemd), '/var/lib/a');
  assert.equal(dir({}, { STATE_DIRECTORY: '' }), '/var/lib/dualport');
});

test('what pseudo addresses are can be read without a port to publish', () => {
  const text = 'pseudoV4: 10.64.0.0/10\npseudoUnit: /56\n';
  const readFile = () => new TextEncoder().encode(text);
  const flags = { config: 'd.yaml', stateDir: '/srv/x' };
  const pseudo = loadPseudoConfig({ flags, env: { DUALPORT_PSEUDO_V6: 'fd01::/96' }, readFile });
  assert.deepEqual(
    [formatCidr(pseudo.v4), formatCidr(pseudo.v6), pseudo.unitBits, pseudo.stateDir],
    ['10.64.0.0/10', 'fd01::/96', 56, '/srv/x'],
  );
  const { unitBits } = load(publish, {}, text).pseudo;
  assert.equal(unitBits, 56);
});

test('a label may say transparent on the networks that were named, and on all of them with a star', () => {
  const allows = (written: string | undefined, network: string) =>
    allowsTransparent(load({ ...publish, transparentNetworks: written }), network);
  assert.equal(allows(undefined, 'front'), false);
  assert.equal(allows('front,back', 'back'), true);
  assert.equal(allows('front,back', 'fron'), false);
  assert.equal(allows('*', 'anything'), true);
});

test('an unknown variable of dualport is refused with the nearest, others are not looked at', () => {
  refuses(
    'USAGE',
    2,
    () => load(publish, { DUALPORT_LOGLEVEL: 'info' }),
    /^the environment variable DUALPORT_LOGLEVEL is not known; did you mean DUALPORT_LOG_LEVEL\?; remove it/,
  );
  refuses(
    'USAGE',
    2,
    () => load(publish, { DUALPORT_ZZZZZZ: undefined }),
    /DUALPORT_ZZZZZZ is not known; remove/,
  );
  refuses('USAGE', 2, () => load(publish, { DUALPORT_PORT: '8080' }), /DUALPORT_PORT is not known/);
  assert.equal(load(publish, { DUALPORT: 'x', XDUALPORT_TO: 'x', PATH: '/bin' }).rules.length, 1);
});

test('variables of a Kubernetes service that is named dualport are left alone', () => {
  const env = {
    DUALPORT_SERVICE_HOST: '10.0.0.11',
    DUALPORT_SERVICE_PORT: '443',
    DUALPORT_SERVICE_PORT_HTTPS: '443',
    DUALPORT_PORT: 'tcp://10.0.0.11:443',
    DUALPORT_PORT_443_TCP: 'tcp://10.0.0.11:443',
    DUALPORT_PORT_443_TCP_PROTO: 'tcp',
    DUALPORT_PORT_443_TCP_PORT: '443',
    DUALPORT_PORT_443_TCP_ADDR: '10.0.0.11',
    DUALPORT_ADMIN_SERVICE_HOST: '10.0.0.12',
    DUALPORT_ADMIN_PORT: 'udp://10.0.0.12:53',
  };
  assert.equal(load(publish, env).rules.length, 1);
});

test('a file on disk is read, and what is wrong with it is said', (t) => {
  const cwd = mkdtempSync(join(tmpdir(), 'dualport-config-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  const from = (config: string) => loadConfig({ flags: { config }, env: {}, cwd });
  writeFileSync(join(cwd, 'good.yaml'), `\uFEFF${file}`);
  writeFileSync(join(cwd, 'large.yaml'), Buffer.alloc(1024 * 1024 + 1, '#'));
  writeFileSync(join(cwd, 'full.yaml'), `${file}#`.padEnd(1024 * 1024, '#'));
  writeFileSync(join(cwd, 'latin1.yaml'), Buffer.from('# \xe4', 'latin1'));
  writeFileSync(join(cwd, 'empty.yaml'), '');
  symlinkSync('loop.yaml', join(cwd, 'loop.yaml'));
  assert.equal(from('good.yaml').rules.length, 3);
  assert.equal(from('full.yaml').rules.length, 3);
  const refusesFile = (name: string, why: RegExp) => refuses('CONFIG_FILE', 78, () => from(name), why);
  refusesFile(
    'none.yaml',
    /^none\.yaml: the configuration file does not exist; check the path given by --config/,
  );
  refusesFile('.', /^\.: the configuration file is a directory/);
  refusesFile('large.yaml', /^large\.yaml: the configuration file is larger than 1 MiB/);
  refusesFile('/dev/zero', /^\/dev\/zero: the configuration file is larger than 1 MiB/);
  refusesFile('latin1.yaml', /^latin1\.yaml: the configuration file is not UTF-8 text/);
  refusesFile('empty.yaml', /^empty\.yaml: the configuration file is empty/);
  refusesFile('loop.yaml', /^loop\.yaml: the configuration file cannot be read: ELOOP/);
});

test('a file that may not be read says so', () => {
  const readFile = () => {
    throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
  };
  const make = () => loadConfig({ flags: { config: 'd.yaml' }, env: {}, readFile });
  refuses('CONFIG_FILE', 78, make, /^d\.yaml: the configuration file may not be read by this user/);
});

test('every thread is to have a flow at least', () => {
  assert.equal(load({ ...publish, threads: '4', maxFlows: '4' }).threads, 4);
  refuses(
    'USAGE',
    2,
    () => load({ ...publish, threads: '4', maxFlows: '3' }),
    /found 4 threads, and at most 3 flows/,
  );
});

test('a flag publishes no more ports than both protocols have, however short it is', () => {
  const publish = [Array.from({ length: 3 }, (_, i) => `127.0.0.${i + 1}:1-65535:1-65535`).join(',')];
  assert.throws(
    () => loadConfig({ flags: { publish, to: ['10.0.0.1'] }, env: {} }),
    /^DualportError: --publish: found more than 131070 up to here; allowed: 131070 in all/,
  );
});
