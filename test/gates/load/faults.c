#include "faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void add_fault(struct faults *faults, const char *what)
{
	unsigned i = 0;
	while (i < FAULT_KINDS - 1 && faults->kinds[i].what && strcmp(faults->kinds[i].what, what) != 0)
		i++;
	if (!faults->kinds[i].what)
		faults->kinds[i].what = what;
	faults->kinds[i].times++;
	faults->all++;
}

void print_faults(const struct faults *faults)
{
	printf("{");
	for (unsigned i = 0; i < FAULT_KINDS && faults->kinds[i].what; i++)
		printf("%s\"%s\":%" PRIu64, i ? "," : "", faults->kinds[i].what, faults->kinds[i].times);
	printf("}");
}
