/**
 * A proxy, dualport and a receiver in a row: the first client's address arrives at the last of them, in any
 * version of the header, and in one family whatever the addresses were.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { here, Stage } from '../support/dualport.ts';
import {
  accepting,
  bodyOf,
  exchange,
  families,
  receivingHaproxy,
  receivingNginx,
  request,
  senders,
} from '../support/dualport-peers.ts';
import { startHaproxy } from '../support/haproxy.ts';
import { freePort } from '../support/process.ts';
import { skipUnless } from '../support/requirements.ts';

const options = { skip: skipUnless('linux', 'ipv6', 'nginx-stream', 'haproxy'), timeout: 30_000 };

for (const { title, start } of senders) {
  for (const source of ['proxy-v1', 'proxy-v2']) {
    test(
      `${title}, dualport with ${source} and nginx in a row keep the first client's address`,
      options,
      async (t) => {
        const stage = new Stage(t);
        const [port, web] = [await freePort(), await freePort()];
        const nginx = await receivingNginx(stage, web);
        const [, to] = await accepting(stage, web, ['--source', source, '--allow', '127.0.0.9,::1']);
        await start(stage, port, to);
        for (const { client, dialled } of families) {
          const { answer, localPort } = await exchange(client, dialled, port, request);
          assert.equal(bodyOf(answer), `${client} ${localPort} ${dialled} ${port}`);
        }
        assert.deepEqual(nginx.complaints, []);
      },
    );
  }
}

test('an IPv4 client that a proxy spells v4-mapped goes on as the IPv4 client it is', options, async (t) => {
  const stage = new Stage(t);
  const [port, web] = [await freePort(), await freePort()];
  await receivingNginx(stage, web);
  const [dualport, to] = await accepting(stage, web, ['--source', 'proxy-v1', '--allow', '127.0.0.9']);
  // One socket for both families: such a listener sees, and names, IPv4 clients as ::ffff:a.b.c.d.
  const sections = `
listen sender
  mode tcp
  bind :::${port} v4v6
  server dualport 127.0.0.1:${to} send-proxy-v2`;
  await startHaproxy(stage, here, sections, [['tcp6', port]]);
  const { answer, localPort } = await exchange('127.0.0.9', '127.0.0.1', port, request);
  assert.equal(bodyOf(answer), `127.0.0.9 ${localPort} 127.0.0.1 ${port}`);
  const flow = await dualport.flow();
  assert.equal(flow['client.address'], '127.0.0.9');
  assert.equal(flow['network.type'], 'ipv4');
});

/** Version 2 from [2001:db8::c]:4660, which dialled [::ffff:198.51.100.7]:443, that is to say IPv4. */
const mixedHeader = Buffer.from(
  '0d0a0d0a000d0a515549540a2121002420010db800000000000000000000000c00000000000000000000ffffc6336407123401bb',
  'hex',
);

for (const source of ['proxy-v1', 'proxy-v2']) {
  test(
    `an IPv6 client of an IPv4 address goes on in one family, and both receivers read it (${source})`,
    options,
    async (t) => {
      const stage = new Stage(t);
      const [web, receiver] = [await freePort(), await freePort()];
      await receivingNginx(stage, web);
      await receivingHaproxy(stage, receiver);
      for (const upstream of [web, receiver]) {
        const [, to] = await accepting(stage, upstream, ['--source', source]);
        const says = Buffer.concat([mixedHeader, request]);
        const { answer } = await exchange('127.0.0.1', '127.0.0.1', to, says);
        const [client, port, ...dialled] = bodyOf(answer).split(' ');
        assert.deepEqual([client, port], ['2001:db8::c', '4660']);
        assert.match(dialled.join(' '), /^::ffff:(198\.51\.100\.7|c633:6407) 443$/);
      }
    },
  );
}
