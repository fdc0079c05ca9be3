/** Containers and networks as the engine lists them (Docker 20.10 to 28, what dualport does not read left out). */

export interface ListedContainer {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly Created: number;
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
  readonly HostConfig: { readonly NetworkMode: string };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, ListedPlace>> };
  readonly Ports: readonly ListedPort[];
}

export interface ListedPlace {
  readonly NetworkID: string;
  readonly EndpointID: string;
  readonly IPAddress: string;
  readonly GlobalIPv6Address: string;
}

export interface ListedPort {
  readonly IP?: string;
  readonly PrivatePort: number;
  readonly PublicPort?: number;
  readonly Type: string;
}

export interface ListedNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly IPAM: { readonly Config: readonly { readonly Subnet: string }[] };
  readonly Labels: Readonly<Record<string, string>>;
}

/** As long as Docker's, and the same for the same name. */
export function idOf(name: string): string {
  return Buffer.from(name).toString('hex').padEnd(64, '0').slice(0, 64);
}

export interface ContainerOptions {
  readonly labels?: Readonly<Record<string, string>>;
  readonly mode?: string;
  readonly state?: string;
  readonly created?: number;
  /** Addresses by network: IPv4, IPv6, or both between spaces. */
  readonly networks?: Readonly<Record<string, string>>;
  /** `0.0.0.0:8080:80/tcp`, as dockerd has published them. */
  readonly published?: readonly string[];
  readonly id?: string;
  /** How often it was started; each time it gets new endpoints. */
  readonly starts?: number;
}

export function container(name: string, options: ContainerOptions = {}): ListedContainer {
  const { networks = { bridge: '172.17.0.2' }, published = [] } = options;
  const places = Object.entries(networks).map(([network, addresses]): [string, ListedPlace] => {
    const texts = addresses.split(' ');
    const [v4 = '', v6 = ''] = [
      texts.find((text) => !text.includes(':')),
      texts.find((text) => text.includes(':')),
    ];
    const EndpointID = idOf(`${name} ${network} ${options.starts ?? 1}`);
    return [network, { NetworkID: idOf(network), EndpointID, IPAddress: v4, GlobalIPv6Address: v6 }];
  });
  return {
    Id: options.id ?? idOf(name),
    Names: [`/${name}`],
    Created: options.created ?? 1_700_000_000,
    State: options.state ?? 'running',
    Labels: options.labels ?? {},
    HostConfig: { NetworkMode: options.mode ?? 'bridge' },
    NetworkSettings: { Networks: Object.fromEntries(places) },
    Ports: published.map(publishedPort),
  };
}

function publishedPort(text: string): ListedPort {
  const [, ip = '', hostPort, port, type = ''] = /^\[?(.*?)\]?:(\d+):(\d+)\/(\w+)$/.exec(text) ?? [];
  return { IP: ip, PublicPort: Number(hostPort), PrivatePort: Number(port), Type: type };
}

export interface NetworkOptions {
  readonly driver?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export function network(
  name: string,
  subnets: readonly string[],
  options: NetworkOptions = {},
): ListedNetwork {
  return {
    Id: idOf(name),
    Name: name,
    Driver: options.driver ?? 'bridge',
    IPAM: { Config: subnets.map((Subnet) => ({ Subnet })) },
    Labels: options.labels ?? {},
  };
}
