/*
 * The kernel fills in length, identifier and checksum of an IPv4 header; an IPv6 header and both UDP headers are made
 * here. IPv4 leaves the UDP checksum to us as 0, which means that there is none; IPv6 demands one.
 */
#define _GNU_SOURCE
#include "raw.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <string.h>

#include "failure.h"

enum { MOST_PAYLOAD = 1200, HOPS = 64 };

int open_raw(sa_family_t family)
{
	return must(socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), "a raw socket");
}

static uint32_t sum_of(const void *bytes, size_t length, uint32_t sum)
{
	const uint8_t *at = bytes;
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	if (length % 2)
		sum += (uint32_t)at[length - 1] << 8;
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	uint16_t checksum = (uint16_t)~sum;
	return checksum ? checksum : 0xffff;
}

/* RFC 8200, 8.1: addresses, length and protocol, then the datagram. */
static uint16_t checksum_of(const struct ip6_hdr *ip, const struct udphdr *udp, size_t length)
{
	uint32_t sum = sum_of(&ip->ip6_src, 32, (uint32_t)length + IPPROTO_UDP);
	return htons(folded(sum_of(udp, length, sum)));
}

static size_t put_udp(uint8_t *at, const struct endpoint *from, const struct endpoint *to, const void *payload, size_t length)
{
	struct udphdr udp = {
		.source = htons(port_of(from)), .dest = htons(port_of(to)), .len = htons((uint16_t)(sizeof udp + length)),
	};
	memcpy(at, &udp, sizeof udp);
	memcpy(at + sizeof udp, payload, length);
	return sizeof udp + length;
}

static size_t make_ipv4(uint8_t *packet, const struct endpoint *from, const struct endpoint *to, const void *payload,
                        size_t length)
{
	struct iphdr ip = {
		.version = 4, .ihl = 5, .ttl = HOPS, .protocol = IPPROTO_UDP,
		.saddr = ((const struct sockaddr_in *)&from->address)->sin_addr.s_addr,
		.daddr = ((const struct sockaddr_in *)&to->address)->sin_addr.s_addr,
	};
	memcpy(packet, &ip, sizeof ip);
	return sizeof ip + put_udp(packet + sizeof ip, from, to, payload, length);
}

static size_t make_ipv6(uint8_t *packet, const struct endpoint *from, const struct endpoint *to, const void *payload,
                        size_t length)
{
	struct ip6_hdr ip = { .ip6_src = ((const struct sockaddr_in6 *)&from->address)->sin6_addr,
		              .ip6_dst = ((const struct sockaddr_in6 *)&to->address)->sin6_addr };
	size_t udp_length = put_udp(packet + sizeof ip, from, to, payload, length);
	ip.ip6_flow = htonl(6u << 28);
	ip.ip6_plen = htons((uint16_t)udp_length);
	ip.ip6_nxt = IPPROTO_UDP;
	ip.ip6_hlim = HOPS;
	memcpy(packet, &ip, sizeof ip);
	struct udphdr *udp = (struct udphdr *)(packet + sizeof ip);
	udp->check = checksum_of(&ip, udp, udp_length);
	return sizeof ip + udp_length;
}

bool send_forged(int raw, const struct endpoint *from, const struct endpoint *to, const void *payload, size_t length)
{
	_Alignas(8) uint8_t packet[sizeof(struct ip6_hdr) + sizeof(struct udphdr) + MOST_PAYLOAD];
	bool is_ipv4 = to->address.ss_family == AF_INET;
	/* A raw socket takes no port. */
	struct endpoint destination = with_port(*to, 0);
	size_t size = (is_ipv4 ? make_ipv4 : make_ipv6)(packet, from, to, payload, length < MOST_PAYLOAD ? length : MOST_PAYLOAD);
	if (sendto(raw, packet, size, 0, (const struct sockaddr *)&destination.address, destination.length) >= 0)
		return true;
	if (errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED && errno != EPERM)
		failure("sending with a forged source: %s", strerror(errno));
	return false;
}
