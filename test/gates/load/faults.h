/* What went wrong, in words, and how often: a JSON object such as {"not done in 10 s":2}. */
#pragma once

#include <stdint.h>

enum { FAULT_KINDS = 16 };

struct faults {
	struct {
		const char *what;
		uint64_t times;
	} kinds[FAULT_KINDS];
	uint64_t all;
};

/** `what` must outlive the faults. Beyond FAULT_KINDS different ones the last counts for the others. */
void add_fault(struct faults *faults, const char *what);

void print_faults(const struct faults *faults);
