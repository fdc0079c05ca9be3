/** How the host reaches an upstream, which is how its answers come. */
import type { Upstream } from './needs.ts';

export type Way =
  | { readonly kind: 'local' }
  | { readonly kind: 'interface'; readonly name: string; readonly gateway: string | undefined }
  | { readonly kind: 'none'; readonly reason: string };

export interface HostFacts {
  /** By {@link hostOf}. */
  readonly ways: ReadonlyMap<string, Way>;
  /** False where the kernel has none, or it is switched off. */
  readonly ipv6: boolean;
  /** Interfaces with a link-local address. */
  readonly linkLocal: ReadonlySet<string>;
}

export type WayOf = (upstream: Upstream) => Way;
