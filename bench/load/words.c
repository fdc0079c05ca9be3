/*
 * getopt_long is not used since an endpoint is two words after one option (`--target <address> <port>`), and
 * since its error texts do not say what is allowed.
 */
#include "words.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

const char *next_word(struct words *words)
{
	return *words->next ? *words->next++ : NULL;
}

const char *take_word(struct words *words, const char *what)
{
	const char *word = next_word(words);
	if (!word)
		usage_error("%s is missing, a value must follow", what);
	return word;
}

double take_number(struct words *words, const char *what, double least, double most)
{
	const char *word = take_word(words, what);
	char *end;
	double value = strtod(word, &end);
	if (end == word || *end || !isfinite(value) || value < least || value > most)
		usage_error("%s is '%s', allowed are numbers from %.10g to %.10g", what, word, least, most);
	return value;
}

long take_integer(struct words *words, const char *what, long least, long most)
{
	const char *word = take_word(words, what);
	char *end;
	errno = 0;
	long value = strtol(word, &end, 10);
	if (end == word || *end || errno || value < least || value > most)
		usage_error("%s is '%s', allowed are integers from %ld to %ld", what, word, least, most);
	return value;
}

bool same_word(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}
