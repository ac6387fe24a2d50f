package main

import (
	"flag"
	"os"
	"runtime/debug"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// systemCalls lists the only system calls that are allowed: those that Go's runtime and two pipes need. All others fail with
// EPERM, for example to open a file or a socket, or to start another program.
var systemCalls = []string{
	"read", "write", "close", "exit", "exit_group",
	"mmap", "munmap", "mprotect", "madvise", "mincore",
	"futex", "clone", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "membarrier",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill", "getpid", "gettid",
	"nanosleep", "clock_nanosleep", "clock_gettime", "restart_syscall", "getrandom",
	"timer_create", "timer_settime", "timer_delete",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2", "fcntl", "fstat",
}

// confine permanently takes away from this process what a render does not need: files, the network, other programs, and more
// memory than `-memory` bytes. It uses Landlock as far as the kernel supports it. It fails if the kernel cannot filter
// system calls.
func confine() error {
	memory := flag.Uint64("memory", 0, "bytes of memory that this process may have; 0 is no limit")
	seconds := flag.Uint64("processor-seconds", 0, "seconds of processor time that this process may use; 0 is no limit")
	flag.Parse()
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: 16}
	if *memory > 0 {
		limits[unix.RLIMIT_DATA] = *memory
		// Near the limit, the garbage collector runs more often, so that the process is less likely to reach it and die.
		debug.SetMemoryLimit(int64(*memory / 8 * 7))
	}
	if *seconds > 0 {
		limits[unix.RLIMIT_CPU] = *seconds
	}
	for resource, most := range limits {
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
// measures of confine prevent without it.
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
