// supervise runs one program and never outlives, nor lets it outlive, whoever started it.
//
//	supervise PID_FILE PROGRAM [args...]
//
// Standard input is a pipe whose other end the owner holds open. Each byte that arrives asks for a signal ('t' SIGTERM,
// 'k' SIGKILL, 'i' SIGINT, 's' SIGSTOP, 'c' SIGCONT); the end of the input means that the owner is gone, however it
// went, and kills the program with its whole process group. SIGTERM and SIGINT sent to supervise itself are passed on.
// The program's process id is written to PID_FILE. The exit code is the program's, or 128 + the signal that ended it.
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
	// The parent-death signal follows the thread that started the program, not the process: keep that thread.
	runtime.LockOSThread()

	forwarded := make(chan os.Signal, 8)
	signal.Notify(forwarded, syscall.SIGTERM, syscall.SIGINT)

	program := exec.Command(argv[0], argv[1:]...)
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	// A group of its own: a Ctrl-C on the terminal reaches the owner only, which decides what happens.
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
	// Whatever the program started and left behind goes with it.
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

// obey turns the owner's requests into signals until the owner is gone.
func obey(input io.Reader, process *os.Process) {
	request := make([]byte, 1)
	for {
		if _, err := io.ReadFull(input, request); err != nil {
			_ = syscall.Kill(-process.Pid, syscall.SIGKILL)
			return
		}
		if s, known := requests[request[0]]; known {
			// Process.Signal, unlike kill(2), knows when the process has been reaped: no reused id is ever signalled.
			_ = process.Signal(s)
		}
	}
}

// writeWhole makes the file appear with all of its content at once, for a reader that polls for it.
func writeWhole(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
