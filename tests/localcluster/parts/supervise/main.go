// supervise runs one program. Both end when the process that started supervise ends.
//
//	supervise PID_FILE PROGRAM [args...]
//
// The owner is the process that started supervise. Standard input is a pipe that the owner keeps open. Each byte in it is a
// request to send the program a signal ('t' SIGTERM, 'k' SIGKILL, 'i' SIGINT, 's' SIGSTOP, 'c' SIGCONT). The end of the
// input means that the owner has ended; then supervise kills the program and its whole process group. supervise passes on
// SIGTERM and SIGINT that it gets itself. It writes the program's process id to PID_FILE. Its exit code is that of the
// program, or 128 + the signal that ended the program.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
)

var requests = map[byte]syscall.Signal{
	't': syscall.SIGTERM,
	'k': syscall.SIGKILL,
	'i': syscall.SIGINT,
	's': syscall.SIGSTOP,
	'c': syscall.SIGCONT,
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: supervise PID_FILE PROGRAM [args...]")
		os.Exit(2)
	}
	code, err := supervise(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervise:", err)
		os.Exit(127)
	}
	os.Exit(code)
}

func supervise(pidFile string, argv []string) (int, error) {
	// The kernel sends the parent-death signal when the thread that started the program ends, even if the process goes on. So
	// this thread must not end.
	runtime.LockOSThread()

	forwarded := make(chan os.Signal, 8)
	signal.Notify(forwarded, syscall.SIGTERM, syscall.SIGINT)

	program := exec.Command(argv[0], argv[1:]...)
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	// The program gets its own process group. So a Ctrl-C on the terminal reaches only the owner, and the owner decides what to
	// do.
	program.SysProcAttr = dieWithParent(&syscall.SysProcAttr{Setpgid: true})
	if err := program.Start(); err != nil {
		return 0, err
	}
	pid := program.Process.Pid
	if err := writeWhole(pidFile, strconv.Itoa(pid)); err != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return 0, fmt.Errorf("the process id could not be recorded: %w", err)
	}

	go func() {
		for s := range forwarded {
			_ = program.Process.Signal(s)
		}
	}()
	go obey(os.Stdin, program.Process)

	err := program.Wait()
	// Kill the processes that the program started and that still run.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	status := program.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// obey sends the signals that the owner requests, until the owner ends.
func obey(input io.Reader, process *os.Process) {
	request := make([]byte, 1)
	for {
		if _, err := io.ReadFull(input, request); err != nil {
			_ = syscall.Kill(-process.Pid, syscall.SIGKILL)
			return
		}
		if s, known := requests[request[0]]; known {
			// Unlike kill(2), Process.Signal sends nothing after the process was waited for. So another process that got the same id
			// is never hit.
			_ = process.Signal(s)
		}
	}
}

// writeWhole writes a file so that it appears with its whole content at once, because a reader polls for it.
func writeWhole(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
