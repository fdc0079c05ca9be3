/*
 * tcp-load open <address> <port> --connections C --rate R --seconds S [--size 64]
 * tcp-load idle <address> <port> --connections N [--size 64]
 *
 * The client of an echo server, directly or through what is measured: latency at a fixed rate (tcp-open.c), and
 * connections that exist and do nothing (tcp-idle.c).
 */
#include "tcp-load.h"

#include "clock.h"
#include "failure.h"
#include "fill.h"

int main(int count, char **arguments)
{
	struct words words = { count > 0 ? arguments + 1 : arguments };
	const char *mode = take_word(&words, "open or idle");
	if (!same_word(mode, "open") && !same_word(mode, "idle"))
		usage_error("found '%s', allowed are open and idle", mode);
	struct endpoint to = take_endpoint(&words, "<address>");
	prepare_fill();
	want_exact_timers();
	if (same_word(mode, "open"))
		run_open(&to, &words);
	else
		run_idle(&to, &words);
	return 0;
}
