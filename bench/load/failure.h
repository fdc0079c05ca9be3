/* How a program ends that cannot do what it was asked: one line on stderr, `<program>: found, allowed`. */
#pragma once

/** The command line is wrong; exit status 2. */
void usage_error(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** The command line was right and the machine refused; exit status 1. */
void failure(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** For calls that fail only if the kernel or this program is broken. */
int must(int result, const char *call);
