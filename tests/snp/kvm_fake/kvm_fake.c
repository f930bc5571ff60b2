// SPDX-License-Identifier: Apache-2.0
//
// A fake /dev/kvm and /dev/sev for tests, as a library to be preloaded into QEMU (LD_PRELOAD). EMULATED: no guest runs
// and nothing is encrypted. QEMU executes its whole SEV-SNP launch against it, and what it hands to the kernel is
// written down, so that it can be compared with what parma_snp predicts. It needs neither a real /dev/kvm nor root.
//
// PARMA_FAKE_KVM_RECORD  directory (must exist) for events.jsonl, one JSON object per event, and update-N.bin, the
//                        bytes of the Nth SNP_LAUNCH_UPDATE
// PARMA_FAKE_KVM_FAIL    optional "COMMAND:ERRNO:FIRMWARE_ERROR" (decimal): that SEV command fails, once and for all;
//                        COMMAND 0 means that KVM knows no SNP VMs
//
// Sources for numbers and structures: Linux 6.12, Documentation/virt/kvm/api.rst, x86/amd-memory-encryption.rst and the
// headers linux/kvm.h, asm/kvm.h, linux/psp-sev.h; AMD publications 56860 and 24594 (CPUID). They are spelled out here
// because the headers of Debian 12 are older than SEV-SNP.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/kvm_para.h>

enum { CAP_EXIT_HYPERCALL = 201, CAP_MEMORY_ATTRIBUTES = 233, CAP_GUEST_MEMFD = 234, CAP_VM_TYPES = 235 };
enum { CAP_USER_MEMORY2 = 231, VM_TYPE_SNP = 4, HYPERCALL_MAP_GPA_RANGE = 12 };
enum { MEMORY_ATTRIBUTE_PRIVATE = 1 << 3, RUN_AREA = 3 * 4096, MAX_FD = 4096, MAX_VCPU = 512 };

// By their number alone: the size inside the request code differs between headers.
enum { NR_SET_USER_MEMORY_REGION2 = 0x49, NR_SET_MEMORY_ATTRIBUTES = 0xd2, NR_CREATE_GUEST_MEMFD = 0xd4 };
enum { NR_MEMORY_ENCRYPT_OP = 0xba };

enum { SEV_INIT2 = 22, SNP_LAUNCH_START = 100, SNP_LAUNCH_UPDATE = 101, SNP_LAUNCH_FINISH = 102 };
enum { PLATFORM_STATUS = 1, GET_ID2 = 8, SNP_PLATFORM_STATUS = 9, CHIP_ID = 64 };

struct sev_cmd { uint32_t id, pad; uint64_t data; uint32_t error, sev_fd; };
struct sev_init { uint64_t vmsa_features; uint32_t flags; uint16_t ghcb_version, pad1; uint32_t pad2[8]; };
struct snp_start { uint64_t policy; uint8_t gosvw[16]; uint16_t flags; uint8_t pad0[6]; uint64_t pad1[4]; };
struct snp_update {
    uint64_t gfn_start, uaddr, len;
    uint8_t type, pad0;
    uint16_t flags;
    uint32_t pad1;
    uint64_t pad2[4];
};
struct snp_finish {
    uint64_t id_block_uaddr, id_auth_uaddr;
    uint8_t id_block_en, auth_key_en, vcek_disabled, host_data[32], pad0[3];
    uint16_t flags;
    uint64_t pad1[4];
};
struct sev_issue_cmd { uint32_t cmd; uint64_t data; uint32_t error; } __attribute__((packed));

enum kind { NONE, KVM, VM, VCPU, GUEST_MEMFD, SEV, DEVICE };

static struct { enum kind kind; int vcpu; } files[MAX_FD];
static struct { struct kvm_regs regs; struct kvm_sregs sregs; struct kvm_mp_state mp; } vcpus[MAX_VCPU];
static int vcpu_count, update_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// Writing down

static void write_file(const char *name, const char *mode, const void *data, size_t size)
{
    const char *directory = getenv("PARMA_FAKE_KVM_RECORD");
    char path[4096];
    FILE *file;

    if (!directory)
        return;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = fopen(path, mode);
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) {
        perror("kvm_fake: cannot record");
        abort();
    }
}

__attribute__((format(printf, 1, 2))) static void event(const char *format, ...)
{
    static char line[32768];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length] = '\n';
    write_file("events.jsonl", "a", line, (size_t)length + 1);
}

static const char *hex(char *out, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sprintf(out + 2 * i, "%02x", ((const uint8_t *)data)[i]);
    out[2 * size] = 0;
    return out;
}

// The SEV commands

static int wanted_failure(uint32_t id, struct sev_cmd *cmd)
{
    const char *text = getenv("PARMA_FAKE_KVM_FAIL");
    unsigned command, number, firmware;

    if (!text || sscanf(text, "%u:%u:%u", &command, &number, &firmware) != 3 || command != id)
        return 0;
    if (cmd)
        cmd->error = firmware;
    errno = (int)number;
    return -1;
}

static int launch_start(const struct snp_start *start)
{
    char gosvw[33];

    event("{\"event\": \"start\", \"policy\": %llu, \"gosvw\": \"%s\", \"flags\": %u}", (unsigned long long)start->policy,
          hex(gosvw, start->gosvw, sizeof start->gosvw), start->flags);
    return 0;
}

static int launch_update(struct snp_update *update)
{
    char name[32];

    snprintf(name, sizeof name, "update-%d.bin", update_count++);
    write_file(name, "w", (const void *)(uintptr_t)update->uaddr, update->len);
    event("{\"event\": \"update\", \"type\": %u, \"gpa\": %llu, \"length\": %llu, \"flags\": %u, \"file\": \"%s\"}",
          update->type, (unsigned long long)update->gfn_start * 4096, (unsigned long long)update->len, update->flags,
          name);
    update->gfn_start += update->len / 4096;
    update->uaddr += update->len;
    update->len = 0;
    return 0;
}

static int launch_finish(const struct snp_finish *finish)
{
    char host_data[65], block[193], auth[8193];

    // The real KVM turns each vCPU's state into a VMSA page here and measures it.
    for (int i = 0; i < vcpu_count; i++)
        event("{\"event\": \"vcpu\", \"index\": %d, \"rip\": %llu, \"cs_base\": %llu, \"rdx\": %llu}", i,
              (unsigned long long)vcpus[i].regs.rip, (unsigned long long)vcpus[i].sregs.cs.base,
              (unsigned long long)vcpus[i].regs.rdx);
    event("{\"event\": \"finish\", \"host_data\": \"%s\", \"id_block_en\": %u, \"auth_key_en\": %u, "
          "\"vcek_disabled\": %u, \"id_block\": \"%s\", \"id_auth\": \"%s\"}",
          hex(host_data, finish->host_data, sizeof finish->host_data), finish->id_block_en, finish->auth_key_en,
          finish->vcek_disabled,
          finish->id_block_en ? hex(block, (const void *)(uintptr_t)finish->id_block_uaddr, 96) : "",
          finish->id_block_en ? hex(auth, (const void *)(uintptr_t)finish->id_auth_uaddr, 4096) : "");
    return 0;
}

static int sev_command(struct sev_cmd *cmd)
{
    void *data = (void *)(uintptr_t)cmd->data;

    cmd->error = 0;
    if (wanted_failure(cmd->id, cmd))
        return -1;
    switch (cmd->id) {
    case SEV_INIT2:
        event("{\"event\": \"init2\", \"vmsa_features\": %llu}",
              (unsigned long long)((struct sev_init *)data)->vmsa_features);
        return 0;
    case SNP_LAUNCH_START:
        return launch_start(data);
    case SNP_LAUNCH_UPDATE:
        return launch_update(data);
    case SNP_LAUNCH_FINISH:
        return launch_finish(data);
    }
    errno = ENOTTY;
    return -1;
}

static int sev_device(unsigned long request, struct sev_issue_cmd *issue)
{
    static const uint8_t reported_tcb[8] = {4, 0, 0, 0, 0, 0, 24, 219};
    uint8_t *answer = (uint8_t *)(uintptr_t)issue->data;

    if (_IOC_TYPE(request) != 'S') {
        errno = ENOTTY;
        return -1;
    }
    issue->error = 0;
    switch (issue->cmd) {
    case SNP_PLATFORM_STATUS:
        memcpy(answer + 24, reported_tcb, sizeof reported_tcb);
        __attribute__((fallthrough)); // both begin with api_major, api_minor, state; what else there is stays zero
    case PLATFORM_STATUS:
        answer[0] = 1;
        answer[1] = 55;
        answer[2] = 1;
        return 0;
    case GET_ID2:
        answer = (uint8_t *)(uintptr_t)*(uint64_t *)answer;
        for (int i = 0; i < CHIP_ID; i++)
            answer[i] = (uint8_t)(i + 1);
        return 0;
    }
    errno = ENOTTY;
    return -1;
}

// The rest of KVM, as far as QEMU asks

static int extension(unsigned long number)
{
    switch (number) {
    case CAP_VM_TYPES:
        return wanted_failure(0, NULL) ? 1 : 1 | 1 << VM_TYPE_SNP;
    case CAP_EXIT_HYPERCALL:
        return 1 << HYPERCALL_MAP_GPA_RANGE;
    case CAP_MEMORY_ATTRIBUTES:
        return MEMORY_ATTRIBUTE_PRIVATE;
    case KVM_CAP_NR_VCPUS:
    case KVM_CAP_MAX_VCPUS:
    case KVM_CAP_MAX_VCPU_ID:
        return MAX_VCPU;
    case KVM_CAP_NR_MEMSLOTS:
        return 512;
    case KVM_CAP_IRQ_ROUTING:
        return 4096;
    case KVM_CAP_MCE:
        return 32;
    case KVM_CAP_MULTI_ADDRESS_SPACE:
        return 1;
    case KVM_CAP_XSAVE2:
        return 4096;
    case CAP_GUEST_MEMFD:
    case CAP_USER_MEMORY2:
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_SET_TSS_ADDR:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
    case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
    case KVM_CAP_INTERNAL_ERROR_DATA:
    case KVM_CAP_IRQFD:
    case KVM_CAP_IOEVENTFD:
    case KVM_CAP_IOEVENTFD_ANY_LENGTH:
    case KVM_CAP_SET_IDENTITY_MAP_ADDR:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_X86_ROBUST_SINGLESTEP:
    case KVM_CAP_SYNC_MMU:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_SPLIT_IRQCHIP:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_ENABLE_CAP_VM:
    case KVM_CAP_CHECK_EXTENSION_VM:
    case KVM_CAP_ADJUST_CLOCK:
        return 1;
    }
    return 0;
}

static int supported_cpuid(struct kvm_cpuid2 *cpuid)
{
    // Every feature of the words that CPU models are made of, so that no model lacks one; sizes of XSAVE as they are.
    static const struct kvm_cpuid_entry2 entries[] = {
        {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 1, .eax = 0x800f12, .ecx = ~0u, .edx = ~0u},
        {.function = 7, .flags = 1, .ebx = ~0u, .ecx = ~0u, .edx = ~0u},
        {.function = 0xd, .flags = 1, .index = 0, .eax = 7, .ebx = 832, .ecx = 832},
        {.function = 0xd, .flags = 1, .index = 1, .eax = 0xf},
        {.function = 0xd, .flags = 1, .index = 2, .eax = 256, .ebx = 576},
        {.function = 0x80000000, .eax = 0x80000021, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 0x80000001, .eax = 0x800f12, .ecx = ~0u, .edx = ~0u},
        {.function = 0x80000007, .ebx = ~0u, .edx = ~0u},
        {.function = 0x80000008, .eax = 0x3030, .ebx = ~0u},
        {.function = 0x8000000a, .eax = 1, .ebx = 8, .edx = ~0u},
        {.function = 0x8000001f, .eax = 0x1a, .ebx = 51 | 1 << 6},
        {.function = 0x80000021, .eax = ~0u},
        {.function = KVM_CPUID_SIGNATURE, .eax = KVM_CPUID_FEATURES},
        {.function = KVM_CPUID_FEATURES, .eax = ~0u},
    };
    unsigned count = sizeof entries / sizeof *entries;

    if (cpuid->nent < count) {
        errno = E2BIG;
        return -1;
    }
    memcpy(cpuid->entries, entries, sizeof entries);
    cpuid->nent = count;
    return 0;
}

static int new_file(enum kind kind, int vcpu, size_t size)
{
    int fd = memfd_create("kvm_fake", MFD_CLOEXEC);

    if (fd < 0 || fd >= MAX_FD || ftruncate(fd, (off_t)size)) {
        perror("kvm_fake: cannot make a file");
        abort();
    }
    files[fd].kind = kind;
    files[fd].vcpu = vcpu;
    return fd;
}

static int zeroed(unsigned long request, void *argument)
{
    // What is only read back, or set and forgotten.
    if (_IOC_DIR(request) & _IOC_READ)
        memset(argument, 0, _IOC_SIZE(request));
    return 0;
}

static int system_request(unsigned long request, void *argument)
{
    switch (request) {
    case KVM_GET_API_VERSION:
        return KVM_API_VERSION;
    case KVM_CHECK_EXTENSION:
        return extension((unsigned long)argument);
    case KVM_GET_VCPU_MMAP_SIZE:
        return RUN_AREA;
    case KVM_CREATE_VM:
        event("{\"event\": \"create_vm\", \"type\": %lu}", (unsigned long)argument);
        return new_file(VM, 0, 0);
    case KVM_GET_SUPPORTED_CPUID:
        return supported_cpuid(argument);
    case KVM_GET_MSR_INDEX_LIST:
    case KVM_GET_MSR_FEATURE_INDEX_LIST:
        ((struct kvm_msr_list *)argument)->nmsrs = 0;
        return 0;
    case KVM_GET_MSRS:
        return 0;
    case KVM_X86_GET_MCE_CAP_SUPPORTED:
        *(uint64_t *)argument = ~0ull;
        return 0;
    }
    return zeroed(request, argument);
}

static int vm_request(unsigned long request, void *argument)
{
    const uint64_t *words = argument;

    switch (_IOC_NR(request)) {
    case NR_MEMORY_ENCRYPT_OP:
        return sev_command(argument);
    case NR_CREATE_GUEST_MEMFD:
        event("{\"event\": \"guest_memfd\", \"length\": %llu}", (unsigned long long)words[0]);
        return new_file(GUEST_MEMFD, 0, words[0]);
    case NR_SET_MEMORY_ATTRIBUTES:
        event("{\"event\": \"attributes\", \"gpa\": %llu, \"length\": %llu, \"private\": %s}",
              (unsigned long long)words[0], (unsigned long long)words[1],
              words[2] & MEMORY_ATTRIBUTE_PRIVATE ? "true" : "false");
        return 0;
    case NR_SET_USER_MEMORY_REGION2:
        return 0;
    }
    switch (request) {
    case KVM_CHECK_EXTENSION:
        return extension((unsigned long)argument);
    case KVM_CREATE_VCPU:
        if (vcpu_count == MAX_VCPU)
            abort();
        return new_file(VCPU, vcpu_count++, RUN_AREA);
    case KVM_CREATE_DEVICE:
        ((struct kvm_create_device *)argument)->fd = (uint32_t)new_file(DEVICE, 0, 0);
        return 0;
    }
    return zeroed(request, argument);
}

static int vcpu_request(int vcpu, unsigned long request, void *argument)
{
    switch (request) {
    case KVM_RUN:
        // No guest: as if a signal had come before its first instruction.
        usleep(2000);
        errno = EINTR;
        return -1;
    case KVM_SET_REGS:
        vcpus[vcpu].regs = *(struct kvm_regs *)argument;
        return 0;
    case KVM_GET_REGS:
        *(struct kvm_regs *)argument = vcpus[vcpu].regs;
        return 0;
    case KVM_SET_SREGS:
        vcpus[vcpu].sregs = *(struct kvm_sregs *)argument;
        return 0;
    case KVM_GET_SREGS:
        *(struct kvm_sregs *)argument = vcpus[vcpu].sregs;
        return 0;
    case KVM_SET_MP_STATE:
        vcpus[vcpu].mp = *(struct kvm_mp_state *)argument;
        return 0;
    case KVM_GET_MP_STATE:
        *(struct kvm_mp_state *)argument = vcpus[vcpu].mp;
        return 0;
    case KVM_SET_MSRS:
        return (int)((struct kvm_msrs *)argument)->nmsrs;
    case KVM_GET_MSRS:
        return (int)((struct kvm_msrs *)argument)->nmsrs;
    case KVM_GET_CPUID2:
        return supported_cpuid(argument);
    }
    return zeroed(request, argument);
}

// What is interposed. pthread_mutex: QEMU's vCPU threads come in here at the same time.

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    enum kind kind = fd >= 0 && fd < MAX_FD ? files[fd].kind : NONE;
    va_list arguments;
    void *argument;
    int result;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    request = (unsigned int)request;
    if (kind == NONE) {
        if (!real)
            real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, argument);
    }
    if (kind == VCPU && request == KVM_RUN)
        return vcpu_request(0, request, argument);
    pthread_mutex_lock(&lock);
    switch (kind) {
    case KVM:
        result = system_request(request, argument);
        break;
    case VM:
        result = vm_request(request, argument);
        break;
    case VCPU:
        result = vcpu_request(files[fd].vcpu, request, argument);
        break;
    case SEV:
        result = sev_device(request, argument);
        break;
    default:
        result = zeroed(request, argument);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int faked(const char *path)
{
    if (!strcmp(path, "/dev/kvm"))
        return new_file(KVM, 0, 0);
    if (!strcmp(path, "/dev/sev"))
        return new_file(SEV, 0, 0);
    return -1;
}

#define INTERPOSE_OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        static int (*real)(const char *, int, ...);                                                                    \
        va_list arguments;                                                                                             \
        unsigned mode;                                                                                                 \
        int fd = faked(path);                                                                                          \
                                                                                                                       \
        if (fd >= 0)                                                                                                   \
            return fd;                                                                                                 \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, unsigned);                                                                            \
        va_end(arguments);                                                                                             \
        if (!real)                                                                                                     \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                                           \
        return real(path, flags, mode);                                                                                \
    }

INTERPOSE_OPEN(open)
INTERPOSE_OPEN(open64)
INTERPOSE_OPEN(__open_2)
INTERPOSE_OPEN(__open64_2)

int close(int fd)
{
    static int (*real)(int);

    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd < MAX_FD)
        files[fd].kind = NONE;
    return real(fd);
}

// For the test: QEMU compares the C-bit it is told with what this machine's processor answers, whatever that is.
unsigned kvm_fake_cbit(void)
{
    unsigned eax = 0x8000001f, ebx, ecx = 0, edx;

    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ebx & 0x3f;
}
