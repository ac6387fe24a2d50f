// Package confine takes away from a worker process in Go what it does not need, before it reads what strangers wrote.
package confine

import (
	"os"
	"runtime/debug"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// systemCalls lists the only system calls that are allowed: those that Go's runtime needs, and those that read and write
// what is open already. All others fail with EPERM, for example to open a file or a socket, or to start another program.
var systemCalls = []string{
	"read", "write", "close", "exit", "exit_group",
	"mmap", "munmap", "mprotect", "madvise", "mincore",
	"futex", "clone", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "membarrier",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill", "getpid", "gettid",
	"nanosleep", "clock_nanosleep", "clock_gettime", "restart_syscall", "getrandom",
	"timer_create", "timer_settime", "timer_delete",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2", "fcntl", "fstat",
}

// Limits are those of a process; 0 is no limit.
type Limits struct {
	// Memory is in bytes.
	Memory uint64
	// ProcessorSeconds is the processor time.
	ProcessorSeconds uint64
}

// Process permanently takes away from this process what a worker does not need: files, new connections, other programs, and
// more than its limits. It uses Landlock as far as the kernel supports it. It fails if the kernel cannot filter system
// calls.
func Process(limits Limits) error {
	resources := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: 16}
	if limits.Memory > 0 {
		resources[unix.RLIMIT_DATA] = limits.Memory
		// Near the limit, the garbage collector runs more often, so that the process is less likely to reach it and die.
		debug.SetMemoryLimit(int64(limits.Memory / 8 * 7))
	}
	if limits.ProcessorSeconds > 0 {
		resources[unix.RLIMIT_CPU] = limits.ProcessorSeconds
	}
	for resource, most := range resources {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	if err := landlock.V8.BestEffort().Restrict(); err != nil {
		return err
	}
	return filterSystemCalls()
}

// filterSystemCalls refuses all system calls but those in the list. It is a variable, so that a test can check what the other
// measures of Process prevent without it.
var filterSystemCalls = func() error {
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: systemCalls}},
		},
	})
}
