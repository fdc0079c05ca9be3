/**
 * The memory that TypeScript and the C core share, as native/core.h has it: events, payloads of datagrams,
 * four endpoints as arguments of calls, and per slot the bytes, the time of the last one and the end.
 * native/addon.c lays it out in this order; a test compares both.
 */

export const maxEvents = 1024;
export const eventBytes = 72;
export const arenaBytes: number = 2 * 1024 * 1024;
export const endpointBytes = 24;
export const argumentEndpoints = 4;
/** Which of them says where an upstream is connected from. */
export const sourceEndpoint = 3;

/** Offsets in bytes; the arrays of doubles come first behind the events, so that they are aligned. */
export interface Layout {
  readonly events: number;
  readonly endpoints: number;
  readonly bytes: number;
  readonly answerBytes: number;
  readonly activeMs: number;
  readonly ended: number;
  readonly arena: number;
  readonly total: number;
}

export function layoutFor(slots: number): Layout {
  const events = 0;
  const endpoints = events + maxEvents * eventBytes;
  const bytes = endpoints + argumentEndpoints * endpointBytes;
  const answerBytes = bytes + slots * 8;
  const activeMs = answerBytes + slots * 8;
  const ended = activeMs + slots * 8;
  // Rounded up, so that the payloads begin on a cache line.
  const arena = Math.ceil((ended + slots) / 64) * 64;
  return { events, endpoints, bytes, answerBytes, activeMs, ended, arena, total: arena + arenaBytes };
}

export const eventKind = {
  accepted: 1,
  readable: 2,
  gone: 3,
  connected: 4,
  ended: 5,
  datagram: 6,
  answered: 7,
  refused: 8,
  acceptFailed: 9,
  handed: 10,
  handedBack: 11,
} as const;

/** `enum source_kind`. */
export const sourceKind = { any: 0, local: 1, foreign: 2 } as const;

export const endReason = { done: 0, clientReset: 1, upstreamReset: 2 } as const;
