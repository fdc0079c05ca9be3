/**
 * Faults to be planted into copies of dualport, one each, and the gate that has to find it: a gate that nothing can fail
 * promises nothing. A fault is a piece of text that stands once in one file (what tsc made of a source, or C) and
 * what is put in its place.
 */
import type { EngineName } from './options.ts';

export interface Seed {
  /** What is wrong, as its finder would say it. */
  readonly fault: string;
  readonly engine: EngineName;
  readonly gate: string;
  /** Below dist/src, or below native. */
  readonly file: string;
  readonly text: string;
  readonly wrong: string;
  /** What the gate has to say of it. */
  readonly seen: RegExp;
}

export const seeds: readonly Seed[] = [
  {
    fault: 'one upstream socket of a hundred is never closed',
    engine: 'linux',
    gate: 'leaks',
    file: 'native/table.c',
    text: '  close(slot->fd);\n  *slot = (struct slot){.fd = -1,',
    wrong:
      '  static unsigned closed;\n  if (++closed % 100) close(slot->fd);\n  *slot = (struct slot){.fd = -1,',
    seen: /does not give back after cycle 1: .*descriptors \+\d+, sockets \+\d+/,
  },
  {
    fault: 'a pipe is only half closed',
    engine: 'linux',
    gate: 'leaks',
    file: 'native/pipes.c',
    text: '  close(pipe->read);\n',
    wrong: '',
    seen: /does not give back after cycle 1: .*pipes \+\d+/,
  },
  {
    fault: 'the reset of a client leaves the upstream open',
    engine: 'portable',
    gate: 'leaks',
    file: 'engine/portable/relay.js',
    text: 'counterIndex.resets] ?? 0) + 1;\n        for (const socket of this.#sockets)\n            reset(socket);',
    wrong: 'counterIndex.resets] ?? 0) + 1;\n        reset(this.#sockets[side]);',
    seen: /does not give back after cycle 1: .*sockets \+\d+/,
  },
  {
    fault: 'ended TCP flows stay in a list',
    engine: 'linux',
    gate: 'leaks',
    file: 'engine/tcp-flow.js',
    text: '        this.#context.flows.delete(this);',
    wrong:
      '        (globalThis.kept ??= []).push({ ...this, more: new Array(64).fill(0) });\n        this.#context.flows.delete(this);',
    seen: /growth of memory \(objects\)/,
  },
  {
    fault: 'ended UDP flows stay in a list',
    engine: 'portable',
    gate: 'leaks',
    file: 'engine/udp-flow.js',
    text: '        this.forget();',
    wrong: '        (globalThis.kept ??= []).push(new Array(128).fill(0));\n        this.forget();',
    seen: /growth of memory \(objects\)/,
  },
  {
    fault: 'the pause of accept is left out',
    engine: 'linux',
    gate: 'idle',
    file: 'engine/linux/context.js',
    text: '        this.#paused = true;\n        for (const listener of this.#accepting)\n            this.core.accepting(listener, false);',
    wrong: '        this.#paused = true;',
    seen: /sockets at the limit/,
  },
  {
    fault: 'idle connections are ended though no timeout is set',
    engine: 'portable',
    gate: 'idle',
    file: 'engine/portable/relay.js',
    text: 'if (limitMs > 0 && nowMs',
    wrong: 'if (nowMs',
    seen: /carry another exchange afterwards/,
  },
  {
    fault: 'every connection keeps a buffer of 64 KiB',
    engine: 'linux',
    gate: 'idle',
    file: 'engine/tcp-flow.js',
    text: '        this.plan = plan;\n',
    wrong: '        this.plan = plan;\n        this.buffer = Buffer.alloc(65536, 1);\n',
    seen: /resident memory for each in KiB/,
  },
  {
    fault: 'a writer is never held up',
    engine: 'portable',
    gate: 'slow readers',
    file: 'engine/portable/relay.js',
    text: 'if (!this.#pass(side, chunk))\n                from.pause();',
    wrong: 'this.#pass(side, chunk);',
    seen: /held of one direction|directions of which more/,
  },
  {
    fault: 'there is no end of pipes',
    engine: 'linux',
    gate: 'slow readers',
    file: 'native/tcp.h',
    text: 'MAX_PIPES = 64,',
    wrong: 'MAX_PIPES = 6400,',
    seen: /pipes that it holds/,
  },
  {
    fault: 'what a reader has no room for is thrown away',
    engine: 'linux',
    gate: 'slow readers',
    file: 'native/relay.c',
    text: 'return keep(d, buffer + taken, (size_t)got - taken) ? MOVED : TARGET_FAILED;',
    wrong: 'return (void)taken, MOVED;',
    seen: /carried all they had/,
  },
  {
    fault: 'the end of one direction ends both',
    engine: 'portable',
    gate: 'connections',
    file: 'engine/portable/tcp-flow.js',
    text: 'allowHalfOpen: true,',
    wrong: 'allowHalfOpen: false,',
    seen: /connections that failed/,
  },
  {
    fault: 'one connection of a thousand is reset',
    engine: 'linux',
    gate: 'connections',
    file: 'engine/tcp-flow.js',
    text: '        if (!this.#takePlace(peer))\n            return;\n',
    wrong:
      '        if (!this.#takePlace(peer))\n            return;\n' +
      '        if ((globalThis.nth = (globalThis.nth ?? 0) + 1) % 1000 === 0)\n            return this.gone();\n',
    seen: /connections that failed: expected 0, seen \d+ \(\d+ × Connection reset by peer/,
  },
  {
    fault: 'one datagram of five hundred goes to the upstream of another flow',
    engine: 'linux',
    gate: 'udp',
    file: 'native/udp-batch.c',
    text: '  batches->to_upstream.fd = core->slots[flow->slot].fd;\n',
    wrong:
      '  static unsigned nth;\n  int32_t slot = flow->slot;\n' +
      '  if (++nth % 500 == 0 && core->slots[slot - 1].kind == SLOT_UDP_FLOW) slot--;\n' +
      '  batches->to_upstream.fd = core->slots[slot].fd;\n',
    seen: /misrouted datagrams/,
  },
  {
    fault: 'a train leaves as one datagram',
    engine: 'linux',
    gate: 'udp',
    file: 'native/udp-send.c',
    text: '  if (++parcel->count == 2) put_control(message, IPPROTO_UDP, UDP_SEGMENT, &each, sizeof each);\n',
    wrong: '  parcel->count++, (void)each;\n',
    seen: /anything was wrong/,
  },
  {
    fault: 'one answer of a hundred goes to the first client',
    engine: 'portable',
    gate: 'udp',
    file: 'engine/portable/udp-flow.js',
    text: 'this.#owner.reply(datagram, this);',
    wrong:
      'const first = (globalThis.first ??= this), nth = (globalThis.nth = (globalThis.nth ?? 0) + 1);\n' +
      '            this.#owner.reply(datagram, nth % 100 === 0 ? first : this);',
    seen: /misrouted datagrams/,
  },
  {
    fault: 'an answered flow may be ended for a new one',
    engine: 'portable',
    gate: 'spoofed src',
    file: 'engine/udp-flow.js',
    text: '    answered() {\n        this.#context.admission.waitsNoMore(this.#place, this);\n',
    wrong: '    answered() {\n',
    seen: /of them alive behind/,
  },
  {
    fault: 'UDP may take all places',
    engine: 'linux',
    gate: 'spoofed src',
    file: 'engine/admission.js',
    text: 'Math.floor(maxFlows / 2)',
    wrong: 'maxFlows',
    seen: /flows with forged sources .*: expected \d+ at most/,
  },
  {
    fault: 'a reload opens every listener anew',
    engine: 'portable',
    gate: 'reloads',
    file: 'service/reconcile.js',
    text: 'open: wanted.filter((rule) => !running.has(rule.name)).sort(byChoice),\n        keep: wanted.filter((rule) => running.has(rule.name)),\n        close: [...running].filter((name) => !names.has(name)),',
    wrong:
      'open: wanted.filter((rule) => names.has(rule.name)).sort(byChoice),\n        keep: [],\n        close: [...running],',
    seen: /connections that failed|stand still/,
  },
  {
    fault: 'a configuration that fails half-way stays half-way',
    engine: 'linux',
    gate: 'reloads',
    file: 'service/service.js',
    text: '            for (const name of opened)\n                await this.#close(name);\n',
    wrong: '',
    seen: /what runs after broken file/,
  },
  {
    fault: 'the socket of a killed process is in the way',
    engine: 'portable',
    gate: 'restarts',
    file: 'service/admin.js',
    text: '!(await isStaleSocket(path))',
    wrong: '(await isStaleSocket(path))',
    seen: /cannot serve --admin/,
  },
  {
    fault: 'ports of old connections are in the way',
    engine: 'linux',
    gate: 'restarts',
    file: 'native/tcp.c',
    text: '  int error = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);\n',
    wrong: '  int error = 0;\n',
    seen: /another program holds this port/,
  },
  {
    fault: 'an accept that fails for want of memory is tried again at once, for ever',
    engine: 'linux',
    gate: 'syscalls',
    file: 'native/tcp.c',
    text: '    if (error == -EAGAIN) return;\n',
    wrong: '    if (error == -EAGAIN) return;\n    while (error == -ENOMEM) usleep(1);\n',
    seen: /accept4 fails with ENOMEM/,
  },
  {
    fault: 'a client that cannot be taken in gets an end instead of a reset',
    engine: 'linux',
    gate: 'syscalls',
    file: 'native/table.c',
    text: '  socket_reset(fd);\n  close(fd);\n',
    wrong: '  close(fd);\n',
    seen: /take a part for the whole/,
  },
  {
    fault: 'a client whose address cannot be asked for gets an end instead of a reset',
    engine: 'portable',
    gate: 'syscalls',
    file: 'engine/portable/tcp-listener.js',
    text: '            reset(socket);\n',
    wrong: '            socket.destroy();\n',
    seen: /getsockname fails with ENOMEM .*take a part for the whole/,
  },
];
