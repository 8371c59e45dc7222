/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_DEBUGGER_H
#define SUPPORT_DEBUGGER_H

/*
 * QEMU's monitor and its debugger stub: the one says what the CPU's walker finds, the other sets
 * the registers that it starts from.
 */

#include "qemu.h"

/* The monitor, in its protocol for machines: one JSON object a line. */

/* Gives the text that a command of the human monitor prints, which stays until the next one. */
__attribute__((format(printf, 2, 3))) static inline const char *
monitor_command(struct qemu *qemu, const char *format, ...)
{
	static char text[4 * MIB];
	const char *const begin = "{\"return\": \"";
	char command[128], line[256];
	va_list arguments;
	size_t length = 0;
	int size;

	va_start(arguments, format);
	size = vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	assert_true(size > 0 && (size_t)size < sizeof(command));
	size = snprintf(line, sizeof(line),
			"{\"execute\": \"human-monitor-command\", "
			"\"arguments\": {\"command-line\": \"%s\"}}\n",
			command);
	qemu_send(qemu, &qemu->monitor, line, size);
	/* Events may come in between. */
	do {
		qemu_receive_until(qemu, &qemu->monitor, "\r\n", text, sizeof(text));
		if (strncmp(text, "{\"error\"", 8) == 0)
			qemu_fail(qemu, "refuses '%s': %.200s", command, text);
	} while (strncmp(text, begin, strlen(begin)) != 0);
	/* Lines end with \r\n, which are the only escapes. */
	for (const char *from = text + strlen(begin); *from && *from != '"'; from++) {
		if (*from == '\\' && *++from == 'r')
			continue;
		text[length++] = from[-1] == '\\' && *from == 'n' ? '\n' : *from;
	}
	text[length] = '\0';
	return text;
}

static inline void monitor_start(struct qemu *qemu)
{
	const char *const command = "{\"execute\": \"qmp_capabilities\"}\n";
	char line[1024];

	/* The greeting, and the answer. */
	qemu_receive_until(qemu, &qemu->monitor, "\r\n", line, sizeof(line));
	qemu_send(qemu, &qemu->monitor, command, strlen(command));
	qemu_receive_until(qemu, &qemu->monitor, "\r\n", line, sizeof(line));
	if (strncmp(line, "{\"return\"", 9) != 0)
		qemu_fail(qemu, "does not start its monitor: %s", line);
}

/* Where the CPU's walker leads an address; false: nowhere. */
static inline bool monitor_translate(struct qemu *qemu, uint64_t address, uint64_t *out_phys)
{
	const char *answer = monitor_command(qemu, "gva2gpa 0x%" PRIx64, address);

	if (sscanf(answer, "gpa: %" SCNx64, out_phys) == 1)
		return true;
	if (strncmp(answer, "Unmapped", 8) != 0)
		qemu_fail(qemu, "does not translate: %.200s", answer);
	return false;
}

/*
 * The debugger stub: GDB's manual, appendix E, Remote Protocol. A packet is $text#sum, and each
 * side says + for what it got.
 */
static inline void debugger_command(struct qemu *qemu, const char *command, char *answer,
				    size_t size)
{
	unsigned char sum = 0;
	char packet[256];
	size_t length;

	for (const char *byte = command; *byte; byte++)
		sum += *byte;
	length = snprintf(packet, sizeof(packet), "$%s#%02x", command, sum);
	assert_true(length < sizeof(packet));
	qemu_send(qemu, &qemu->debugger, packet, length);
	qemu_receive_until(qemu, &qemu->debugger, "$", answer, size);
	qemu_receive_until(qemu, &qemu->debugger, "#", answer, size);
	/* The sum, over a socket that loses nothing. */
	for (unsigned i = 0; i < 2; i++)
		qemu_receive_byte(qemu, &qemu->debugger, milliseconds() + QEMU_PATIENCE_MS);
	qemu_send(qemu, &qemu->debugger, "+", 1);
}

/* A description of registers, a file of XML. */
static inline void debugger_read_file(struct qemu *qemu, const char *name, char *text, size_t size)
{
	size_t length = 0;
	char command[128], part[4096];

	do {
		snprintf(command, sizeof(command), "qXfer:features:read:%s:%zx,800", name, length);
		debugger_command(qemu, command, part, sizeof(part));
		if (*part != 'm' && *part != 'l')
			qemu_fail(qemu, "does not describe %s: %s", name, part);
		/* Offsets count bytes without escapes. */
		for (const char *from = part + 1; *from; from++) {
			assert_true(length + 1 < size);
			text[length++] = *from == '}' ? *++from ^ 0x20 : *from;
		}
	} while (*part == 'm');
	text[length] = '\0';
	/* There are registers in comments. */
	for (char *comment = text; (comment = strstr(comment, "<!--"));) {
		char *end = strstr(comment, "-->");

		assert_non_null(end);
		memset(comment, ' ', end - comment);
	}
}

/* The number of the register in this file, or -1. Without a number it is the one after the last. */
static inline int debugger_find_in(const char *text, const char *name, int *next)
{
	char begin[64];

	snprintf(begin, sizeof(begin), "name=\"%s\"", name);
	while ((text = strstr(text, "<reg "))) {
		const char *end = strchr(text, '>');
		const char *number = strstr(text, "regnum=\""), *found = strstr(text, begin);

		assert_non_null(end);
		if (number && number < end)
			*next = atoi(number + strlen("regnum=\""));
		if (found && found < end)
			return *next;
		++*next;
		text = end;
	}
	return -1;
}

/* The number that the stub knows a register by. */
static inline int debugger_find(struct qemu *qemu, const char *name)
{
	static char text[MIB];
	char target[4096], file[64];
	const char *include = target;
	int next = 0;

	debugger_read_file(qemu, "target.xml", target, sizeof(target));
	while ((include = strstr(include, "<xi:include href=\""))) {
		int number;

		assert_int_equal(sscanf(include, "<xi:include href=\"%63[^\"]\"", file), 1);
		debugger_read_file(qemu, file, text, sizeof(text));
		number = debugger_find_in(text, name, &next);
		if (number >= 0)
			return number;
		include++;
	}
	qemu_fail(qemu, "has no register %s", name);
}

static inline void debugger_set(struct qemu *qemu, int number, uint64_t value)
{
	char command[64], answer[64];
	int length = snprintf(command, sizeof(command), "P%x=", number);

	for (unsigned i = 0; i < 8; i++)
		length += snprintf(command + length, sizeof(command) - length, "%02x",
				   (unsigned)(value >> (8 * i)) & 0xff);
	debugger_command(qemu, command, answer, sizeof(answer));
	if (strcmp(answer, "OK") != 0)
		qemu_fail(qemu, "does not set register %d: '%s'", number, answer);
}

#endif /* SUPPORT_DEBUGGER_H */
