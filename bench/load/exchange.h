/* One message there and back on each of many connections. */
#pragma once

#include "stream.h"

/**
 * Connects the streams that are not connected and carries one message on each, at most 128 at a time; gives up
 * on the rest when nothing has moved for `patience` ns. Streams that did not make it are broken. Returns how
 * many did.
 */
unsigned exchange_on_all(struct streams *streams, const struct endpoint *to, uint64_t patience);
