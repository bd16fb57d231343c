/* count.py's plugin for QEMU: how many instructions each task of the emulated machine has executed, in user space and
 * in the kernel. Whenever somebody reads the /proc/PID/task/TID/schedstat of a task, a line of its counters is written:
 *
 *     user and kernel instructions, the same with each iteration of a REP string instruction taken for one
 *
 * A processor's counter of retired instructions has the former: a REP is one there. The clock of `-icount`, and with it
 * schedstat, has the latter. Who runs is known from the kernel's own switch: it loads the next task's stack pointer.
 *
 * Arguments: out=FILE, addresses of functions (switch=__switch_to_asm, stat=proc_pid_schedstat, both hexadecimal) and
 * offsets in task_struct (sp=thread.sp, runtime=se.sum_exec_runtime). */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of version 1 of QEMU's plugin interface: what is used of it. Debian has no package with its header. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void on_translate(uint64_t id, struct qemu_plugin_tb *block);
typedef void on_execute(unsigned cpu, void *data);
typedef void on_access(unsigned cpu, uint32_t info, uint64_t address, void *data);
enum { NO_REGISTERS = 0, READ_AND_WRITE = 3 };
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, on_translate *callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, on_execute *callback, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, on_access *callback, int flags, int how,
                                      void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);
extern int qemu_plugin_version;
int qemu_plugin_version = 1;

enum { USER, KERNEL, SPACES };
enum { TASK_BITS = 14, TASKS = 1 << TASK_BITS };
/* In the first bytes of these functions the loads are looked for: further on another task may be meant. */
enum { SWITCH_SIZE = 64, STAT_SIZE = 256 };

struct task {
    uint64_t address, retired[SPACES], iterated[SPACES];
};

/* What is translated and executed in one go. */
struct block {
    uint64_t first, last; /* addresses of its instructions */
    uint32_t instructions;
    int space;
    bool begins_with_rep, ends_with_rep;
};

static struct task tasks[TASKS], *current = &tasks[0];
static uint64_t last_rep; /* address, if the last instruction that was executed is a REP */
static uint64_t switch_at, stat_at, sp_offset, runtime_offset;
static FILE *out;

static struct task *find_task(uint64_t address)
{
    size_t i = (address >> 6) * 0x9E3779B97F4A7C15u >> (64 - TASK_BITS);
    for (size_t tried = 0; tasks[i].address != 0 && tasks[i].address != address; i = (i + 1) % TASKS)
        if (++tried == TASKS)
            abort(); /* count.py says that qemu was ended */
    tasks[i].address = address;
    return &tasks[i];
}

static void on_block(unsigned cpu, void *data)
{
    (void)cpu;
    const struct block *block = data;
    bool repeats = block->begins_with_rep && last_rep == block->first;
    current->iterated[block->space] += block->instructions;
    current->retired[block->space] += block->instructions - repeats;
    last_rep = block->ends_with_rep ? block->last : 0;
}

static void on_switch(unsigned cpu, uint32_t info, uint64_t address, void *data)
{
    (void)cpu, (void)info, (void)data;
    current = find_task(address - sp_offset);
}

static void on_stat(unsigned cpu, uint32_t info, uint64_t address, void *data)
{
    (void)cpu, (void)info, (void)data;
    const struct task *task = find_task(address - runtime_offset);
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", task->retired[USER], task->retired[KERNEL],
            task->iterated[USER], task->iterated[KERNEL]);
    fflush(out);
}

/* MOVS, CMPS, STOS, LODS or SCAS behind REP, with any other prefixes. */
static bool is_rep(const uint8_t *code, size_t size)
{
    static const uint8_t prefixes[] = {0xf2, 0xf3, 0x66, 0x67, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    bool rep = false;
    size_t i = 0;
    for (; i < size && memchr(prefixes, code[i], sizeof(prefixes)); i++)
        rep = rep || code[i] == 0xf2 || code[i] == 0xf3;
    if (i < size && (code[i] & 0xf0) == 0x40) /* REX */
        i++;
    return rep && i < size && ((code[i] >= 0xa4 && code[i] <= 0xa7) || (code[i] >= 0xaa && code[i] <= 0xaf));
}

/* mov offset(%register), %register, of 64 bits, with a displacement of 32 bits */
static bool loads_from(const struct qemu_plugin_insn *insn, uint64_t offset)
{
    const uint8_t *code = qemu_plugin_insn_data(insn);
    int32_t displacement;
    if (qemu_plugin_insn_size(insn) != 7 || (code[0] & 0xf8) != 0x48 || code[1] != 0x8b || code[2] >> 6 != 2)
        return false;
    memcpy(&displacement, code + 3, sizeof(displacement));
    return displacement >= 0 && (uint64_t)displacement == offset;
}

static void watch(struct qemu_plugin_insn *insn)
{
    uint64_t at = qemu_plugin_insn_vaddr(insn);
    if (at - switch_at < SWITCH_SIZE && loads_from(insn, sp_offset))
        qemu_plugin_register_vcpu_mem_cb(insn, on_switch, NO_REGISTERS, READ_AND_WRITE, NULL);
    if (at - stat_at < STAT_SIZE && loads_from(insn, runtime_offset))
        qemu_plugin_register_vcpu_mem_cb(insn, on_stat, NO_REGISTERS, READ_AND_WRITE, NULL);
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct block *block = calloc(1, sizeof(*block)); /* as long as qemu: nothing tells when it drops a translation */
    if (!block)
        abort();
    for (size_t i = 0; i < n; i++)
        watch(qemu_plugin_tb_get_insn(tb, i));
    const struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0), *last = qemu_plugin_tb_get_insn(tb, n - 1);
    block->first = qemu_plugin_tb_vaddr(tb);
    block->last = qemu_plugin_insn_vaddr(last);
    block->instructions = (uint32_t)n;
    block->space = block->first >> 63 ? KERNEL : USER;
    block->begins_with_rep = is_rep(qemu_plugin_insn_data(first), qemu_plugin_insn_size(first));
    block->ends_with_rep = is_rep(qemu_plugin_insn_data(last), qemu_plugin_insn_size(last));
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGISTERS, block);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
        else if (sscanf(argv[i], "switch=%" SCNx64, &switch_at) != 1 &&
                 sscanf(argv[i], "stat=%" SCNx64, &stat_at) != 1 && sscanf(argv[i], "sp=%" SCNu64, &sp_offset) != 1 &&
                 sscanf(argv[i], "runtime=%" SCNu64, &runtime_offset) != 1)
            return -1;
    }
    if (!out || !switch_at || !stat_at || !sp_offset || !runtime_offset)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
