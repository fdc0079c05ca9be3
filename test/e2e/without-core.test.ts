/**
 * Where the core in C is not built, or cannot be loaded: the built program in a folder of its own, beside what a checkout
 * or a package without a core has. (The suites themselves are run without it by test/without-core.sh.)
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { here, Stage } from '../support/dualport.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

const shortages = [
  {
    what: 'is not built',
    files: { Makefile: 'all:' },
    // The folder is named, as what to do is done there.
    reason: (native: string) => `its native part is not built (make -C ${native})`,
  },
  {
    what: 'is not in the package',
    files: {},
    reason: () =>
      'this package has no native part at all (npm ci in a checkout builds one, with gcc and make)',
  },
  {
    what: 'cannot be loaded',
    files: { 'build/dualport.node': 'no shared object, and long enough for the header of one'.repeat(10) },
    reason: (native: string) => {
      const core = join(native, 'build', 'dualport.node');
      return `its native part ${core} cannot be loaded: ${core}: invalid ELF header`;
    },
  },
];

/** The program with nothing else of this checkout than these files in native/; and where that is. */
function programAlone(
  stage: Stage,
  files: Readonly<Record<string, string>>,
): { native: string; program: string } {
  const folder = stage.directory();
  cpSync(join(root, 'dist', 'src'), join(folder, 'dist', 'src'), { recursive: true });
  for (const name of ['package.json', 'node_modules']) symlinkSync(join(root, name), join(folder, name));
  const native = join(folder, 'native');
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(native, name)), { recursive: true });
    writeFileSync(join(native, name), text);
  }
  return { native, program: join(folder, 'dist', 'src', 'main.js') };
}

/** The port of a server that sends back what it gets. */
async function echo(context: TestContext): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
  context.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as net.AddressInfo).port;
}

async function exchange(port: number, host: string): Promise<string> {
  const socket = net.connect({ port, host });
  socket.end('ping');
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  return answer;
}

for (const { what, files, reason } of shortages) {
  const skip = skipUnless('linux');

  for (const engine of [[], ['--engine', 'auto']]) {
    const title = `where the core ${what} ${engine.join(' ') || 'no word of an engine'} is the portable engine, with a notice`;
    test(title, { skip }, async (context) => {
      const stage = new Stage(context);
      const { native, program } = programAlone(stage, files);
      const port = await freePort();
      const publish = ['-p', `${port}:${await echo(context)}`, '-t', '127.0.0.1'];
      const running = stage.start(here, process.execPath, [program, 'serve', ...publish, ...engine]);
      const ready = await running.says('ready');
      const [notice, ...more] = running.said('falling back');
      assert.deepEqual(
        [ready['engine'], notice?.['fallback'], notice?.['reason'], notice?.['level']],
        ['portable', 'engine', `the linux engine is not here: ${reason(native)}`, 'warn'],
      );
      assert.deepEqual(more, []);
      assert.deepEqual([await exchange(port, '127.0.0.1'), await exchange(port, '::1')], ['ping', 'ping']);
    });
  }

  for (const command of ['serve', 'check']) {
    test(`where the core ${what} ${command} --engine linux is refused`, { skip }, async (context) => {
      const stage = new Stage(context);
      const { native, program } = programAlone(stage, files);
      const args = [program, command, '-p', `${await freePort()}:80`, '-t', '127.0.0.1', '--engine', 'linux'];
      const { code, stdout, stderr } = await stage.run(here, process.execPath, args);
      const advice = '--engine portable runs everywhere, --engine auto takes what there is';
      assert.deepEqual(
        { code, stdout, stderr },
        {
          code: 78,
          stdout: '',
          stderr: `dualport: the linux engine cannot run here: ${reason(native)}; ${advice}\n`,
        },
      );
    });
  }

  test(`where the core ${what} --engine portable says nothing of it`, { skip }, async (context) => {
    const stage = new Stage(context);
    const { program } = programAlone(stage, files);
    const publish = ['-p', `${await freePort()}:80`, '-t', '127.0.0.1', '--engine', 'portable'];
    const running = stage.start(here, process.execPath, [program, 'serve', ...publish]);
    assert.equal((await running.says('ready'))['engine'], 'portable');
    assert.deepEqual(running.said('falling back'), []);
  });
}
