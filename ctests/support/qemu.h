/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_QEMU_H
#define SUPPORT_QEMU_H

/*
 * A QEMU whose memory the test shares and whose devices it drives, without a guest. All that
 * connects the two is passed as file descriptors, so nothing is left behind in the file system, and
 * QEMU dies with the test however the test ends. Whatever takes too long fails the test, with what
 * QEMU has said.
 */

#include "check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Much longer than anything takes on a busy machine. */
#define QEMU_PATIENCE_MS 20000

#define QEMU_BATCH_MAX 1024

/* A part of the memory: @size bytes from @offset in the file lie at @phys for CPU and devices. */
struct qemu_region {
	uint64_t phys;
	uint64_t offset;
	uint64_t size;
};

/* What to start. */
struct qemu_plan {
	const char *program;
	/* Options of the machine, without its memory; then the others, up to a NULL. */
	const char *machine;
	const char *arguments[9];
	struct qemu_region regions[2];
	/* What the CPU runs from its reset vector. */
	const void *firmware;
	size_t firmware_size;
	/* Whether the CPU stays stopped, and debugger.h may be used. */
	bool debugged;
};

/* A stream of answers and how far it was read. */
struct qemu_stream {
	int socket;
	size_t start, end;
	char bytes[65536];
};

struct qemu {
	pid_t pid;
	const struct qemu_plan *plan;
	uint8_t *ram;
	uint64_t ram_size;
	int log;
	struct qemu_stream qtest, monitor, debugger;
	/* Commands of the qtest protocol that were not yet sent, and the answers of those that were. */
	size_t batch_size;
	unsigned batch_count;
	char batch[QEMU_BATCH_MAX * 64];
	uint64_t values[QEMU_BATCH_MAX];
};

/* Fails the test and shows what QEMU wrote to its standard error. */
#define qemu_fail(qemu, ...)                    \
	do {                                    \
		qemu_print_log(qemu);           \
		fail_msg("QEMU: " __VA_ARGS__); \
		abort(); /* Is not reached. */  \
	} while (0)

/* Reads what was logged from @offset on, up to @size - 1 bytes, and ends it with a zero. */
static inline void qemu_read_log(struct qemu *qemu, uint64_t offset, char *text, size_t size)
{
	ssize_t length = pread(qemu->log, text, size - 1, offset);

	text[length > 0 ? length : 0] = '\0';
}

static inline uint64_t qemu_log_size(struct qemu *qemu)
{
	return lseek(qemu->log, 0, SEEK_END);
}

static inline void qemu_print_log(struct qemu *qemu)
{
	uint64_t size = qemu_log_size(qemu);
	char text[4096];

	/* The end of it is what counts. */
	qemu_read_log(qemu, size < sizeof(text) ? 0 : size - sizeof(text) + 1, text, sizeof(text));
	if (*text)
		print_error("%s says:\n%s\n", qemu->plan->program, text);
}

static inline int64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Streams. */

static inline void qemu_send(struct qemu *qemu, struct qemu_stream *stream, const char *bytes,
			     size_t size)
{
	while (size > 0) {
		struct pollfd ready = { .fd = stream->socket, .events = POLLOUT };
		ssize_t sent;

		if (poll(&ready, 1, QEMU_PATIENCE_MS) != 1)
			qemu_fail(qemu, "takes no commands");
		sent = send(stream->socket, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN)
			continue;
		if (sent < 0)
			qemu_fail(qemu, "has gone: %s", strerror(errno));
		bytes += sent;
		size -= sent;
	}
}

/* The next byte, which must come before @deadline. */
static inline char qemu_receive_byte(struct qemu *qemu, struct qemu_stream *stream,
				     int64_t deadline)
{
	if (stream->start == stream->end) {
		struct pollfd ready = { .fd = stream->socket, .events = POLLIN };
		int64_t left = deadline - milliseconds();
		ssize_t size;

		if (left <= 0 || poll(&ready, 1, left) != 1)
			qemu_fail(qemu, "does not answer");
		size = recv(stream->socket, stream->bytes, sizeof(stream->bytes), 0);
		if (size <= 0)
			qemu_fail(qemu, "has ended");
		stream->start = 0;
		stream->end = size;
	}
	return stream->bytes[stream->start++];
}

/* Reads until @end, which is left out, and ends @text with a zero. Gives the length of @text. */
static inline size_t qemu_receive_until(struct qemu *qemu, struct qemu_stream *stream,
					const char *end, char *text, size_t size)
{
	int64_t deadline = milliseconds() + QEMU_PATIENCE_MS;
	size_t end_size = strlen(end), length = 0;

	for (;;) {
		if (length + 1 >= size)
			qemu_fail(qemu, "says more than expected: %.200s", text);
		text[length++] = qemu_receive_byte(qemu, stream, deadline);
		if (length >= end_size && memcmp(text + length - end_size, end, end_size) == 0) {
			text[length - end_size] = '\0';
			return length - end_size;
		}
	}
}

/* Start and end. */

static inline void qemu_exec(const struct qemu_plan *plan, int ram, uint64_t ram_size, int firmware,
			     const int sockets[3], int log)
{
	const char *arguments[64];
	char texts[8][160];
	unsigned count = 0, used = 0;
	char *backend = texts[used++], *machine = texts[used++];

	snprintf(backend, sizeof(*texts),
		 "memory-backend-file,id=ram,share=on,mem-path=/proc/self/fd/%d,size=%" PRIu64, ram,
		 ram_size);
	snprintf(machine, sizeof(*texts), "%s,memory-backend=ram", plan->machine);
	const char *const always[] = { plan->program,	    "-nodefaults", "-no-user-config",
				       "-display",	    "none",	   "-accel",
				       "tcg,thread=single", "-object",	   backend,
				       "-machine",	    machine };
	for (unsigned i = 0; i < sizeof(always) / sizeof(*always); i++)
		arguments[count++] = always[i];

	/* Each socket is a character device, under the name of the option that uses it. */
	const char *const names[] = { "qtest", "mon", "gdb" };
	for (unsigned i = 0; i < 3; i++) {
		char *device = texts[used++];

		if (sockets[i] < 0)
			continue;
		fcntl(sockets[i], F_SETFD, 0);
		snprintf(device, sizeof(*texts), "socket,id=%s,fd=%d", names[i], sockets[i]);
		arguments[count++] = "-chardev";
		arguments[count++] = device;
	}
	arguments[count++] = "-qtest";
	arguments[count++] = "chardev:qtest";
	arguments[count++] = "-qtest-log";
	arguments[count++] = "none";
	arguments[count++] = "-mon";
	arguments[count++] = "chardev=mon,mode=control";
	if (plan->debugged) {
		arguments[count++] = "-gdb";
		arguments[count++] = "chardev:gdb";
		arguments[count++] = "-S";
	} else {
		/* Timers then cost no time while the CPU is halted. */
		arguments[count++] = "-icount";
		arguments[count++] = "shift=0,sleep=off";
	}

	char *bytes = texts[used++], *path = texts[used++];
	snprintf(bytes, sizeof(*texts), "%" PRIu64 "M", ram_size / MIB);
	arguments[count++] = "-m";
	arguments[count++] = bytes;
	if (firmware >= 0) {
		snprintf(path, sizeof(*texts), "/proc/self/fd/%d", firmware);
		arguments[count++] = "-bios";
		arguments[count++] = path;
		fcntl(firmware, F_SETFD, 0);
	}
	for (unsigned i = 0; plan->arguments[i]; i++)
		arguments[count++] = plan->arguments[i];
	arguments[count] = NULL;
	fcntl(ram, F_SETFD, 0);
	dup2(open("/dev/null", O_RDWR), STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	execvp(plan->program, (char *const *)(uintptr_t)arguments);
	dprintf(log, "%s: %s\n", plan->program, strerror(errno));
	_exit(127);
}

static inline bool qemu_is_installed(const char *program)
{
	const char *path = getenv("PATH");

	while (path && *path) {
		size_t size = strcspn(path, ":");
		char file[4096];

		snprintf(file, sizeof(file), "%.*s/%s", (int)size, path, program);
		if (access(file, X_OK) == 0)
			return true;
		path += size + (path[size] == ':');
	}
	return false;
}

/* A table is aligned here as it is in QEMU's memory: so that memory begins at a multiple of this. */
#define QEMU_ALIGNMENT (2 * MIB)

static inline uint8_t *qemu_map(int file, uint64_t size)
{
	uint8_t *room =
		mmap(NULL, size + QEMU_ALIGNMENT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t before = -(uintptr_t)room % QEMU_ALIGNMENT;

	assert_true(room != MAP_FAILED);
	if (before > 0)
		assert_return_code(munmap(room, before), errno);
	room += before;
	assert_return_code(munmap(room + size, QEMU_ALIGNMENT - before), errno);
	assert_true(mmap(room, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) ==
		    room);
	return room;
}

static inline void qemu_start(struct qemu *qemu, const struct qemu_plan *plan)
{
	struct qemu_stream *streams[] = { &qemu->qtest, &qemu->monitor, &qemu->debugger };
	int ram, firmware = -1, theirs[3] = { -1, -1, -1 };
	pid_t parent = getpid();

	memset(qemu, 0, sizeof(*qemu));
	qemu->plan = plan;
	for (unsigned i = 0; i < 2; i++)
		qemu->ram_size += plan->regions[i].size;
	qemu->log = memfd_create("log", MFD_CLOEXEC);
	assert_true(qemu->log >= 0);
	fcntl(qemu->log, F_SETFL, O_APPEND);

	/* Sparse: only what is touched takes memory. */
	ram = memfd_create("ram", MFD_CLOEXEC);
	assert_true(ram >= 0);
	assert_return_code(ftruncate(ram, qemu->ram_size), errno);
	qemu->ram = qemu_map(ram, qemu->ram_size);

	if (plan->firmware) {
		firmware = memfd_create("firmware", MFD_CLOEXEC);
		assert_true(firmware >= 0);
		assert_int_equal(write(firmware, plan->firmware, plan->firmware_size),
				 plan->firmware_size);
	}
	for (unsigned i = 0; i < 3; i++) {
		int pair[2];

		streams[i]->socket = -1;
		if (i == 2 && !plan->debugged)
			continue;
		assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), errno);
		streams[i]->socket = pair[0];
		theirs[i] = pair[1];
	}

	qemu->pid = fork();
	assert_return_code(qemu->pid, errno);
	if (qemu->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The test may have died before that. */
		if (getppid() != parent)
			_exit(127);
		qemu_exec(plan, ram, qemu->ram_size, firmware, theirs, qemu->log);
	}
	close(ram);
	if (firmware >= 0)
		close(firmware);
	for (unsigned i = 0; i < 3; i++) {
		if (theirs[i] >= 0)
			close(theirs[i]);
	}
}

/* Ends QEMU, whatever state it is in. */
static inline void qemu_stop(struct qemu *qemu)
{
	struct qemu_stream *streams[] = { &qemu->qtest, &qemu->monitor, &qemu->debugger };

	if (qemu->pid > 0) {
		kill(qemu->pid, SIGKILL);
		waitpid(qemu->pid, NULL, 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		if (streams[i]->socket >= 0)
			close(streams[i]->socket);
	}
	munmap(qemu->ram, qemu->ram_size);
	close(qemu->log);
}

/* Memory. */

/* The bytes at a physical address, up to the end of the page; NULL: no memory is there. */
static inline void *qemu_memory(struct qemu *qemu, uint64_t phys)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct qemu_region *region = &qemu->plan->regions[i];

		if (phys >= region->phys && phys - region->phys < region->size)
			return qemu->ram + region->offset + (phys - region->phys);
	}
	return NULL;
}

/* A word of memory that QEMU reads and writes too. */
static inline volatile uint64_t *qemu_word(struct qemu *qemu, uint64_t phys)
{
	void *word = qemu_memory(qemu, phys & ~UINT64_C(7));

	if (!word)
		qemu_fail(qemu, "has no memory at 0x%" PRIx64, phys);
	return word;
}

/* The qtest protocol: one line a command, one line an answer. */

/* Adds a command; it is sent by qtest_run(). */
__attribute__((format(printf, 2, 3))) static inline void qtest_add(struct qemu *qemu,
								   const char *format, ...)
{
	size_t room = sizeof(qemu->batch) - qemu->batch_size;
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(qemu->batch + qemu->batch_size, room, format, arguments);
	va_end(arguments);
	assert_true(size > 0 && (size_t)size + 1 < room && qemu->batch_count < QEMU_BATCH_MAX);
	qemu->batch_size += size;
	qemu->batch[qemu->batch_size++] = '\n';
	qemu->batch_count++;
}

/* Sends what was added and gives the value that each command answered, 0 where there is none. */
static inline const uint64_t *qtest_run(struct qemu *qemu)
{
	unsigned count = qemu->batch_count;
	char line[256];

	qemu_send(qemu, &qemu->qtest, qemu->batch, qemu->batch_size);
	qemu->batch_size = qemu->batch_count = 0;
	for (unsigned i = 0; i < count; i++) {
		qemu_receive_until(qemu, &qemu->qtest, "\n", line, sizeof(line));
		if (strncmp(line, "OK", 2) != 0)
			qemu_fail(qemu, "refuses a command: %s", line);
		qemu->values[i] = strtoull(line + 2, NULL, 0);
	}
	return qemu->values;
}

static inline void qtest_add_write32(struct qemu *qemu, uint64_t phys, uint32_t value)
{
	qtest_add(qemu, "writel 0x%" PRIx64 " 0x%" PRIx32, phys, value);
}

static inline void qtest_add_write64(struct qemu *qemu, uint64_t phys, uint64_t value)
{
	qtest_add(qemu, "writeq 0x%" PRIx64 " 0x%" PRIx64, phys, value);
}

/* Words that follow each other, as the bytes of a machine of the same endianness, least first. */
static inline void qtest_add_write(struct qemu *qemu, uint64_t phys, const uint64_t *words,
				   size_t size)
{
	char text[129];

	assert_true(size * 2 < sizeof(text));
	for (size_t i = 0; i < size; i++)
		snprintf(text + 2 * i, 3, "%02x", (unsigned)(words[i / 8] >> (i % 8 * 8)) & 0xff);
	qtest_add(qemu, "write 0x%" PRIx64 " 0x%zx 0x%s", phys, size, text);
}

static inline void qtest_add_read32(struct qemu *qemu, uint64_t phys)
{
	qtest_add(qemu, "readl 0x%" PRIx64, phys);
}

static inline void qtest_add_read64(struct qemu *qemu, uint64_t phys)
{
	qtest_add(qemu, "readq 0x%" PRIx64, phys);
}

static inline uint32_t qtest_read32(struct qemu *qemu, uint64_t phys)
{
	qtest_add_read32(qemu, phys);
	return qtest_run(qemu)[0];
}

#endif /* SUPPORT_QEMU_H */
