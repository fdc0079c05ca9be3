/*
 * Ends the process in place: a generator that went on after an error would print figures, and figures are
 * believed.
 */
#define _GNU_SOURCE
#include "failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void __attribute__((noreturn)) end(int status, const char *format, va_list arguments)
{
	char text[512];
	vsnprintf(text, sizeof text, format, arguments);
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, text);
	exit(status);
}

void usage_error(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	end(2, format, arguments);
}

void failure(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	end(1, format, arguments);
}

int must(int result, const char *call)
{
	if (result < 0)
		failure("%s: %s", call, strerror(errno));
	return result;
}
