/**
 * Both ends of flows that are busy, in a process of their own: connections that carry bulk as fast as they can,
 * connections that stay open, and UDP flows whose clients ask again as soon as they are answered.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { until } from '../engine/harness.ts';

const program = `
const net = require('node:net');
const dgram = require('node:dgram');
const { once } = require('node:events');
const block = Buffer.alloc(65536);
const passed = { bytes: 0, datagrams: 0 };
const say = (what) => console.log(JSON.stringify(what));

const server = net.createServer((socket) => {
  socket.on('data', (data) => (passed.bytes += data.length)).on('error', () => {});
  socket.write('!');
}).listen({ port: 0, host: '127.0.0.1', backlog: 1000 }, () => {
  const { port } = server.address();
  const echo = dgram.createSocket('udp4').bind(port, '127.0.0.1', () => say({ port }));
  echo.on('message', (data, from) => echo.send(data, from.port, from.address));
});

async function connection(port) {
  const socket = net.connect(port, '127.0.0.1');
  await once(socket, 'data');
  return socket.on('error', () => {});
}

/* One lost datagram does not end a flow: it asks again after a while. */
async function association(port, often) {
  const socket = dgram.createSocket('udp4');
  socket.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const ask = () => socket.send(block.subarray(0, 1200), () => {});
  const timer = setInterval(ask, 1000);
  ask();
  await once(socket, 'message');
  socket.on('error', () => {}).on('message', () => {
    passed.datagrams++;
    if (often) ask();
  });
}

process.stdin.once('data', async (line) => {
  const { port, bulk, open, datagrams } = JSON.parse(String(line));
  const sockets = [];
  for (let i = 0; i < bulk + open; i++) sockets.push(await connection(port));
  for (let i = 0; i < open; i++) await association(port, false);
  for (const socket of sockets.slice(0, bulk)) {
    const fill = () => {
      while (socket.write(block));
    };
    socket.on('drain', fill);
    fill();
  }
  for (let i = 0; i < datagrams; i++) await association(port, true);
  say({ busy: true });
  setInterval(() => say({ passed }), 100);
});`;

export interface Passed {
  readonly bytes: number;
  readonly datagrams: number;
}

export interface BusyPeers {
  /** Of TCP and UDP. */
  readonly upstreamPort: number;
  /** What has arrived so far. */
  passed(): Passed;
  /** Resolves when every flow is answered. @param open this many of TCP and of UDP that do little */
  begin(flows: { port: number; bulk: number; datagrams: number; open: number }): Promise<void>;
  close(): void;
}

export async function busyPeers(): Promise<BusyPeers> {
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const [first] = await once(lines, 'line');
  let passed: Passed = { bytes: 0, datagrams: 0 };
  let busy = false;
  lines.on('line', (line) => {
    const said = JSON.parse(line);
    passed = said.passed ?? passed;
    busy ||= said.busy === true;
  });
  return {
    upstreamPort: JSON.parse(String(first)).port,
    passed: () => passed,
    async begin(flows) {
      child.stdin.write(JSON.stringify(flows));
      await until(() => busy, 'every flow to be answered', 30_000);
    },
    close: () => child.kill('SIGKILL'),
  };
}
