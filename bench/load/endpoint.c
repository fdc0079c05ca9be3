/*
 * Only numeric addresses: a name server's time must not be part of a measurement, and a generator that chose
 * one of several addresses by itself would choose the family, which is what is being measured.
 */
#include "endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "failure.h"

static struct endpoint parse_address(const char *text, const char *what)
{
	struct endpoint endpoint = { .length = 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&endpoint.address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&endpoint.address;
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		endpoint.length = sizeof *v4;
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		endpoint.length = sizeof *v6;
	} else {
		usage_error("%s is '%s', allowed are numeric IPv4 and IPv6 addresses", what, text);
	}
	return endpoint;
}

struct endpoint take_endpoint(struct words *words, const char *what)
{
	char port[80];
	snprintf(port, sizeof port, "the port of %s", what);
	struct endpoint endpoint = parse_address(take_word(words, what), what);
	return with_port(endpoint, (uint16_t)take_integer(words, port, 1, 65535));
}

/* sin_port and sin6_port stand in the same place; the kernel relies on it too. */
struct endpoint with_port(struct endpoint endpoint, uint16_t port)
{
	((struct sockaddr_in *)&endpoint.address)->sin_port = htons(port);
	return endpoint;
}

uint16_t port_of(const struct endpoint *endpoint)
{
	return ntohs(((const struct sockaddr_in *)&endpoint->address)->sin_port);
}

struct endpoint_text describe(const struct endpoint *endpoint)
{
	const void *address = endpoint->address.ss_family == AF_INET
		? (const void *)&((const struct sockaddr_in *)&endpoint->address)->sin_addr
		: (const void *)&((const struct sockaddr_in6 *)&endpoint->address)->sin6_addr;
	char host[INET6_ADDRSTRLEN];
	inet_ntop(endpoint->address.ss_family, address, host, sizeof host);
	struct endpoint_text described;
	snprintf(described.text, sizeof described.text, "%s port %u", host, port_of(endpoint));
	return described;
}
