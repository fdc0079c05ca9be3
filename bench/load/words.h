/* The words of a command line, taken from the front; what is missing or out of bounds ends the program. */
#pragma once

#include <stdbool.h>

struct words {
	char **next;
};

/** The next word, or NULL at the end. */
const char *next_word(struct words *words);

/** `what` names the word in the error text, such as `--rate`. */
const char *take_word(struct words *words, const char *what);

double take_number(struct words *words, const char *what, double least, double most);

long take_integer(struct words *words, const char *what, long least, long most);

bool same_word(const char *a, const char *b);
