/* UDP datagrams with any source, by a raw socket. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "endpoint.h"

/** For sending to addresses of this family; needs CAP_NET_RAW. */
int open_raw(sa_family_t family);

/** False when the kernel has no room for it right now. `from` and `to` are of the family of `raw`. */
bool send_forged(int raw, const struct endpoint *from, const struct endpoint *to, const void *payload, size_t length);
