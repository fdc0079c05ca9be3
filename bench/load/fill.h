/* Bytes that tell which number they were made from. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { FILL_MOST = 65536 };

/** Once, before any of the others. */
void prepare_fill(void);

/** FILL_MOST bytes, of which a shorter message has the first. */
const uint8_t *fill_of(uint64_t number);
