/**
 * Where dockerd's launchers hand their sockets over. The launcher (native/docker-proxy.c) has the same variable and
 * the same default, since dockerd leaves it no room for options.
 */
import { notAllowed } from './place.ts';

export const defaultLauncherSocket = '/run/dualport/docker-proxy.sock';

export const launcherSocketForms = `an absolute path of at most 107 bytes; without one ${defaultLauncherSocket}`;

/**
 * Reads a path; `true` is the flag alone.
 *
 * @throws DualportError USAGE
 */
export function parseLauncherSocket(text: string): string {
  if (text === 'true') return defaultLauncherSocket;
  // sun_path holds 108 bytes with its final NUL (unix(7)).
  const fits = text.startsWith('/') && !text.includes('\0') && Buffer.byteLength(text) <= 107;
  if (!fits) throw notAllowed(text, launcherSocketForms);
  return text;
}
