// SPDX-License-Identifier: Apache-2.0
//
// What software in a container does with /dev/sev-guest, written from the kernel's documentation alone
// (include/uapi/linux/sev-guest.h), without a library: it needs no more than a C compiler.
//
// Usage: client COMMAND. Prints "result errno exitinfo2" in decimal, decimal, hex, and for "report" the 4000 bytes of
// the response in hex; for "ext" certs_len and the beginning of the certificate table as well.

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

struct request { u8 version; u64 request, response, exitinfo; };
struct report_request { u8 data[64]; u32 vmpl; u8 reserved[28]; };
struct ext_request { struct report_request report; u64 certs_address; u32 certs_length; u32 padding; };
struct key_request { u32 root, reserved; u64 fields; u32 vmpl, svn; u64 tcb; };

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static u8 response[4000], certs[16384] __attribute__((aligned(4096)));
static char out[20000];
static int used;

static void put(char c) { out[used++] = c; }
static void flush(void) { call(1, 1, (long)out, used); used = 0; }
static void hex(const u8 *data, int size) {
    for (int i = 0; i < size; i++) {
        put("0123456789abcdef"[data[i] >> 4]);
        put("0123456789abcdef"[data[i] & 15]);
    }
}
static void number(long value) {
    char digits[24];
    int count = 0;
    if (value < 0) { put('-'); value = -value; }
    do digits[count++] = '0' + value % 10; while (value /= 10);
    while (count) put(digits[--count]);
}
static int is(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

static void run(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "report";
    struct ext_request report = {0};
    struct key_request key = {0, 0, 9, 0, 0, 0};
    struct request request = {1, (u64)&report, (u64)response, 0xff};
    u32 command_number = 0xC0205300;
    long fd = call(2, (long)"/dev/sev-guest", 2, 0), result;

    if (fd < 0) { number(fd); put('\n'); return; }
    for (int i = 0; i < 64; i++) report.report.data[i] = i * 3 + 1;
    if (is(command, "vmpl1")) report.report.vmpl = 1;
    if (is(command, "vmpl4")) report.report.vmpl = 4;
    if (is(command, "key")) { command_number = 0xC0205301; request.request = (u64)&key; }
    if (is(command, "ext") || is(command, "ext-empty")) command_number = 0xC0205302;
    if (is(command, "ext")) { report.certs_address = (u64)certs; report.certs_length = sizeof certs; }
    if (is(command, "odd")) command_number = 0xC0205309;
    if (is(command, "version")) request.version = 0;
    if (is(command, "bad-argument")) result = call(16, fd, command_number, 4096);
    else if (is(command, "bad-request")) { request.request = 4096; result = call(16, fd, command_number, (long)&request); }
    else if (is(command, "bad-response")) { request.response = ~0UL - 100; result = call(16, fd, command_number, (long)&request); }
    else if (is(command, "kernel-response")) { request.response = 0xffffffff81000000UL; result = call(16, fd, command_number, (long)&request); }
    else if (is(command, "read")) result = call(0, fd, (long)response, 100);
    else if (is(command, "write")) result = call(1, fd, (long)response, 4000);
    else result = call(16, fd, command_number, (long)&request);
    number(result); put(' ');
    hex((u8 *)&request.exitinfo, 8); put(' ');
    hex(response, sizeof response); put(' ');
    number(report.certs_length); put(' ');
    hex(certs, 5000);
    put('\n');
    flush();
}

void start(long *stack) {
    run((int)*stack, (char **)(stack + 1));
    flush();
    call(60, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
