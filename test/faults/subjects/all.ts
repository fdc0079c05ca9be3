/** Everything the rows can be played against, in the order it is shown. */
import type { Subject } from '../subject.ts';
import { dockerProxy } from './docker-proxy.ts';
import { linux, portable } from './dualport.ts';
import { haproxy } from './haproxy.ts';
import { nginx } from './nginx.ts';

export const subjects: readonly Subject[] = [linux, portable, haproxy, nginx, dockerProxy];
