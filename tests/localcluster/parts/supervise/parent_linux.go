package main

import "syscall"

// dieWithParent asks the kernel to kill the program if supervise itself dies.
func dieWithParent(attributes *syscall.SysProcAttr) *syscall.SysProcAttr {
	attributes.Pdeathsig = syscall.SIGKILL
	return attributes
}
