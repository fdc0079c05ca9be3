/** Why a socket file cannot be made where somebody wants it, and what to do: for --admin and for dockerd's launchers. */
import { lstatSync, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, messageOf } from '../errors.ts';

export function socketTrouble(path: string, error: unknown): string {
  const folder = dirname(path);
  switch (errnoOf(error)) {
    case 'EADDRINUSE':
      return occupied(lstatSync(path, { throwIfNoEntry: false }));
    case 'ENOENT':
    case 'EACCES':
      // libuv makes the one of the other.
      return isMissing(folder)
        ? `the folder ${folder} does not exist; make it first (RuntimeDirectory= in a systemd unit)`
        : `this user may not make a socket in the folder ${folder}; give a path in one that it may write to`;
    case 'ENOTDIR':
      return `${folder} is no folder; give a path in one`;
    case 'EROFS':
      return `the folder ${folder} is read-only; give a path in one that may be written to`;
    default:
      return messageOf(error);
  }
}

/** A folder that may not be looked into may be there. */
function isMissing(folder: string): boolean {
  try {
    return statSync(folder, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

function occupied(there: Stats | undefined): string {
  if (there?.isDirectory()) return 'it is a folder; give the path of a socket in it';
  if (there === undefined || there.isSocket())
    return 'another program listens there (see: ss -lxp); stop that one, or give another path';
  const what = there.isFile() ? 'an ordinary file' : 'something that is no socket';
  return `${what} is there, which is not replaced; remove it, or give another path`;
}
