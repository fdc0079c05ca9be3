/* The parts of the echo server: what waits (echo-server.c), what is accepted (listeners), what is echoed. */
#pragma once

#include <stdint.h>

#include "endpoint.h"

enum kind { LISTENER, CONNECTION };

/** Has the loop watch a socket, or watch it for something else. */
void watch(int operation, int fd, enum kind kind, uint32_t events);

/** Opens, binds and watches one port. */
void open_listener(const struct endpoint *at);

void accept_all(int listener);

/** Makes room for connections with descriptors below `limit`. */
void prepare_connections(long limit);

/** Something may be read from or written to this connection. */
void serve_connection(int fd);
