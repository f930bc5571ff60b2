// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the serving process may use. Address space is not limited: Go reserves far more than it uses.
var resourceLimits = map[int]uint64{
	unix.RLIMIT_DATA:     384 << 20, // bytes
	unix.RLIMIT_NOFILE:   16,
	unix.RLIMIT_NPROC:    64, // Go's threads
	unix.RLIMIT_FSIZE:    0,
	unix.RLIMIT_CORE:     0,
	unix.RLIMIT_MEMLOCK:  0,
	unix.RLIMIT_MSGQUEUE: 0,
}

const (
	// No process of a container has this user: the enforcer refuses ids from 2^31 on.
	ownUser    = 0xffffff01
	namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
)

// confine gives up this process' privileges and executes it again, so that every thread of it has given them up:
// namespaces, credentials and limits are a thread's, and only those of the thread that executes survive. Needs root.
func confine() error {
	runtime.LockOSThread()
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("open own executable: %w", err)
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"be the first to go", func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) }},
		{"leave namespaces", func() error { return unix.Unshare(namespaces) }},
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount an empty root", func() error {
			return unix.Mount("none", "/tmp", "tmpfs", unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "size=4k")
		}},
		{"enter the empty root", func() error { return unix.Chroot("/tmp") }},
		{"leave the old root", func() error { return unix.Chdir("/") }},
		{"set limits", setLimits},
		{"drop the bounding set", dropBoundingSet},
		{"leave groups", func() error { return rawCall(unix.SYS_SETGROUPS, 0, 0, 0) }},
		{"leave the group", func() error { return rawCall(unix.SYS_SETRESGID, ownUser, ownUser, ownUser) }},
		{"leave the user", func() error { return rawCall(unix.SYS_SETRESUID, ownUser, ownUser, ownUser) }},
		{"rule out new privileges", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return execute(self, append([]string{os.Args[0], "-confined"}, os.Args[1:]...))
}

func setLimits() error {
	for resource, limit := range resourceLimits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
	}
	return nil
}

func dropBoundingSet() error {
	for capability := uintptr(0); capability <= unix.CAP_LAST_CAP; capability++ {
		// EINVAL: this kernel has fewer.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil && err != unix.EINVAL {
			return err
		}
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

// rawCall is for this thread alone, as all that matters here.
func rawCall(number, first, second, third uintptr) error {
	if _, _, errno := unix.RawSyscall(number, first, second, third); errno != 0 {
		return errno
	}
	return nil
}

// execute runs an open file, with no environment but Go's own limit on memory.
func execute(file int, arguments []string) error {
	argv, err := syscall.SlicePtrFromStrings(arguments)
	if err != nil {
		return err
	}
	environment, err := syscall.SlicePtrFromStrings([]string{"GOMEMLIMIT=256MiB", "GOMAXPROCS=2"})
	if err != nil {
		return err
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(file), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&environment[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("execute: %w", errno)
}

// What Go's run time needs to compute, allocate, and talk through pipes that are open already.
var systemCalls = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FCNTL, unix.SYS_PPOLL,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE,
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM,
	unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_ARCH_PRCTL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_TGKILL, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

const (
	offsetOfNumber       = 0 // in struct seccomp_data
	offsetOfArchitecture = 4
)

// filterSystemCalls allows the calls above and no others, to all threads and for good.
func filterSystemCalls() error {
	count := len(systemCalls)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetOfArchitecture},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.AUDIT_ARCH_X86_64},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offsetOfNumber},
	}
	for index, number := range systemCalls {
		// The jump leads behind the refusal that follows the last comparison.
		filter = append(filter, unix.SockFilter{
			Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(count - index), K: number,
		})
	}
	refusal := unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: refusal},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}
