/** Every subject, in the order in which reports show them. */
import { direct } from './direct.ts';
import { dockerProxy } from './docker-proxy.ts';
import { dualportLinux, dualportPortable, dualportPseudo, dualportTransparent } from './dualport.ts';
import { haproxy, haproxySplice } from './haproxy.ts';
import { nftDnat } from './nft-dnat.ts';
import { nginx, nginx64k } from './nginx.ts';
import { referenceRelay } from './reference-relay.ts';
import { socat, socat256k } from './socat.ts';
import type { Subject } from './subject.ts';

export const allSubjects: readonly Subject[] = [
  direct,
  nftDnat,
  dockerProxy,
  haproxy,
  haproxySplice,
  nginx,
  nginx64k,
  socat,
  socat256k,
  dualportPseudo,
  dualportTransparent,
  dualportPortable,
  dualportLinux,
  referenceRelay,
];
