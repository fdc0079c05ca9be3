/* The two kinds of TCP load; each reads its own options, runs and prints. */
#pragma once

#include "endpoint.h"

void run_open(const struct endpoint *to, struct words *options);
void run_idle(const struct endpoint *to, struct words *options);
