/*
 * The soft limit is low for the sake of select(2), which nothing here uses. The hard one may be a thousand
 * million inside a container, more than a table by descriptor can have; a million is plenty.
 */
#include "open-files.h"

#include <sys/resource.h>

#include "failure.h"

enum { MOST = 1024 * 1024 };

long raise_open_files(void)
{
	struct rlimit limit;
	must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = limit.rlim_max < MOST ? limit.rlim_max : MOST;
	must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	return (long)limit.rlim_cur;
}
