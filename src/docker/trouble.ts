/**
 * What keeps dualport from the engine, in words that lead to what to do. The socket is root's, so most of it
 * is a right that is missing or a proxy that lets too little through.
 */
import { type EngineAddress, formatEngineAddress } from '../config/docker-options.ts';
import { DualportError, errnoOf, messageOf } from '../errors.ts';

/** The calls there are; a socket proxy has to let these through, and nothing else. */
export const calls = ['/version', '/events', '/containers/json', '/networks'] as const;

/** The engine cannot be used as it is now. */
export function engineTrouble(address: EngineAddress, why: string, cause?: unknown): DualportError {
  return new DualportError('DOCKER', `the Docker Engine at ${formatEngineAddress(address)} ${why}`, {
    cause,
  });
}

/** A call that did not come to an answer. */
export function callFailed(address: EngineAddress, error: unknown): DualportError {
  if (error instanceof DualportError) return error;
  const errno = errnoOf(error) ?? '';
  const advice = (address.kind === 'socket' ? socketAdvice[errno] : undefined) ?? anyAdvice[errno];
  return engineTrouble(address, advice ?? `cannot be asked: ${messageOf(error)}`, error);
}

const socketAdvice: Readonly<Record<string, string | undefined>> = {
  ENOENT:
    'is not there: no such socket; start Docker, mount the socket into the container dualport runs in, or say where it ' +
    'is with --docker-engine or DOCKER_HOST',
  EACCES:
    'may not be used by this user; let a socket proxy show it the four calls it needs (docs/docker.md), or add it to ' +
    "the socket's group, which is as good as root",
  ECONNREFUSED:
    'does not listen: Docker is not running (see: systemctl status docker), or this is not its socket',
};

const anyAdvice: Readonly<Record<string, string | undefined>> = {
  ECONNREFUSED: 'does not listen; start it, or check the address',
  ENOTFOUND: 'has a name that does not resolve; check the address, and that the proxy is on the same network',
  EAI_AGAIN:
    'has a name that does not resolve now; check the address, and that the proxy is on the same network',
  ECONNRESET: 'hung up in the middle of an answer',
  EPIPE: 'hung up in the middle of a question',
};

export function tooSlow(address: EngineAddress, path: string, ms: number): DualportError {
  return engineTrouble(
    address,
    `did not answer GET ${path} within ${ms / 1000} s; it may be starting, or hang`,
  );
}

/** An answer, and a refusal. */
export function refusedCall(
  address: EngineAddress,
  path: string,
  status: number,
  text: string,
): DualportError {
  const said = text.trim() === '' ? '' : `: ${JSON.stringify(text.trim().slice(0, 200))}`;
  const advice =
    status === 403 || status === 404 || status === 405
      ? `; if this is a socket proxy, let it pass GET ${calls.join(', ')}`
      : '';
  return engineTrouble(address, `answered GET ${path} with status ${status}${said}${advice}`);
}
