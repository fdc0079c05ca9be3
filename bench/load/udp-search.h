/* The highest rate that is carried with hardly any loss. */
#pragma once

#include "udp-trial.h"

/** Searches and prints a JSON line. */
void run_search(struct way *way);
