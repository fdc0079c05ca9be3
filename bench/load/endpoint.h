/* An address and a port, either family. */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#include "words.h"

struct endpoint {
	struct sockaddr_storage address;
	socklen_t length;
};

/** Takes two words, a numeric address and a port. */
struct endpoint take_endpoint(struct words *words, const char *what);

/** The same address with another port. */
struct endpoint with_port(struct endpoint endpoint, uint16_t port);

uint16_t port_of(const struct endpoint *endpoint);

struct endpoint_text {
	char text[80];
};

/** Such as `::1 port 80`, for messages. */
struct endpoint_text describe(const struct endpoint *endpoint);
