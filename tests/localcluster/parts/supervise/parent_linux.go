package main

import "syscall"

// dieWithParent also covers the death of supervise itself, where the kernel can.
func dieWithParent(attributes *syscall.SysProcAttr) *syscall.SysProcAttr {
	attributes.Pdeathsig = syscall.SIGKILL
	return attributes
}
