/*
 * Functions that do next to nothing, for native-call.ts to call: what is left is the cost of the way into C and back.
 *
 * Each way of handing values over is a function of its own. An argument costs a call back into Node
 * (napi_get_value_int32), and so does a result (napi_create_int32); memory whose address is known costs neither. Every
 * status is checked, as an addon that is meant to be used must, so the price of that is in the figures.
 *
 * The system call is recv() on an established TCP connection where nothing has arrived: it takes the socket's lock,
 * finds an empty queue and returns EAGAIN, the cheapest answer a relay's socket can give.
 */
#define _GNU_SOURCE /* accept4 */
#define NAPI_VERSION 8
#include <arpa/inet.h>
#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

/* The typed array that share() was given; JavaScript keeps it alive for as long as the process. */
static int32_t *shared;
static size_t shared_length;

/* Written by calls without a result, so that their work cannot be left out. */
static volatile int32_t seen;

static napi_value fail(napi_env env, const char *message)
{
	napi_throw_error(env, NULL, message);
	return NULL;
}

static bool read_integers(napi_env env, napi_callback_info info, int32_t *values, size_t wanted)
{
	napi_value arguments[4];
	size_t count = wanted;
	if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || count != wanted)
		return false;
	for (size_t i = 0; i < wanted; i++)
		if (napi_get_value_int32(env, arguments[i], &values[i]) != napi_ok)
			return false;
	return true;
}

static napi_value integer(napi_env env, int32_t value)
{
	napi_value result;
	return napi_create_int32(env, value, &result) == napi_ok ? result : fail(env, "no integer could be made");
}

/* nothing(a, b, c): the arguments are not even looked at. */
static napi_value nothing(napi_env env, napi_callback_info info)
{
	(void)env;
	(void)info;
	return NULL;
}

/* take(a, b, c) */
static napi_value take(napi_env env, napi_callback_info info)
{
	int32_t values[3];
	if (!read_integers(env, info, values, 3))
		return fail(env, "take needs three integers");
	seen = values[0] + values[1] + values[2];
	return NULL;
}

/* answer(): an integer */
static napi_value answer(napi_env env, napi_callback_info info)
{
	(void)info;
	return integer(env, seen);
}

/* add(a, b, c): their sum */
static napi_value add(napi_env env, napi_callback_info info)
{
	int32_t values[3];
	if (!read_integers(env, info, values, 3))
		return fail(env, "add needs three integers");
	return integer(env, values[0] + values[1] + values[2]);
}

static bool read_memory(napi_env env, napi_callback_info info, int32_t **memory, size_t *length)
{
	napi_value array;
	size_t count = 1;
	napi_typedarray_type type;
	void *data;
	if (napi_get_cb_info(env, info, &count, &array, NULL, NULL) != napi_ok || count != 1)
		return false;
	if (napi_get_typedarray_info(env, array, &type, length, &data, NULL, NULL) != napi_ok)
		return false;
	*memory = data;
	return type == napi_int32_array && *length >= 4;
}

/* share(array): the Int32Array that addShared() works on from now on. */
static napi_value share(napi_env env, napi_callback_info info)
{
	if (!read_memory(env, info, &shared, &shared_length))
		return fail(env, "share needs an Int32Array of four");
	return NULL;
}

/* addShared(): the fourth becomes the sum of the first three, all in memory known before the call. */
static napi_value add_shared(napi_env env, napi_callback_info info)
{
	(void)info;
	if (shared_length < 4)
		return fail(env, "share was not called");
	shared[3] = shared[0] + shared[1] + shared[2];
	return NULL;
}

/* addGiven(array): the same in memory that comes with the call. */
static napi_value add_given(napi_env env, napi_callback_info info)
{
	int32_t *memory;
	size_t length;
	if (!read_memory(env, info, &memory, &length))
		return fail(env, "addGiven needs an Int32Array of four");
	memory[3] = memory[0] + memory[1] + memory[2];
	return NULL;
}

static int32_t receive_once(int32_t fd)
{
	static char buffer[65536];
	ssize_t received = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
	return received < 0 ? -errno : (int32_t)received;
}

/* receive(fd): what recv() returned, or -errno */
static napi_value receive(napi_env env, napi_callback_info info)
{
	int32_t fd;
	if (!read_integers(env, info, &fd, 1))
		return fail(env, "receive needs a descriptor");
	return integer(env, receive_once(fd));
}

/* receiveTimes(fd, times): the same system call that often, without JavaScript between; the last result */
static napi_value receive_times(napi_env env, napi_callback_info info)
{
	int32_t values[2], last = 0;
	if (!read_integers(env, info, values, 2))
		return fail(env, "receiveTimes needs a descriptor and a number");
	for (int32_t i = 0; i < values[1]; i++)
		last = receive_once(values[0]);
	return integer(env, last);
}

/* The accepted end of a TCP connection over loopback where nobody ever sends, or -1. */
static int idle_connection(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int accepted = -1;
	if (bind(listener, (struct sockaddr *)&at, size) == 0 && listen(listener, 1) == 0 &&
	    getsockname(listener, (struct sockaddr *)&at, &size) == 0 &&
	    connect(peer, (struct sockaddr *)&at, size) == 0)
		accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	close(listener);
	return accepted;
}

/* idleConnection(): a descriptor; both ends of the connection stay open until the process ends. */
static napi_value open_idle_connection(napi_env env, napi_callback_info info)
{
	(void)info;
	int fd = idle_connection();
	return fd < 0 ? fail(env, "no TCP connection over 127.0.0.1 could be made") : integer(env, fd);
}

static bool export_function(napi_env env, napi_value exports, const char *name, napi_callback function)
{
	napi_value value;
	return napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok &&
	       napi_set_named_property(env, exports, name, value) == napi_ok;
}

__attribute__((visibility("default"))) NAPI_MODULE_INIT()
{
	static const struct {
		const char *name;
		napi_callback function;
	} functions[] = {
		{ "nothing", nothing },
		{ "take", take },
		{ "answer", answer },
		{ "add", add },
		{ "share", share },
		{ "addShared", add_shared },
		{ "addGiven", add_given },
		{ "receive", receive },
		{ "receiveTimes", receive_times },
		{ "idleConnection", open_idle_connection },
	};
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
		if (!export_function(env, exports, functions[i].name, functions[i].function))
			return fail(env, "the functions could not be exported");
	return exports;
}
