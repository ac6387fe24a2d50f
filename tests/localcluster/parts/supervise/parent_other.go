//go:build !linux

package main

import "syscall"

// dieWithParent does nothing here, because only Linux can kill the program when supervise itself dies.
func dieWithParent(attributes *syscall.SysProcAttr) *syscall.SysProcAttr {
	return attributes
}
