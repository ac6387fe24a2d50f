//go:build !linux

package main

import "syscall"

// dieWithParent has no counterpart here: the end of the standard input is what is left.
func dieWithParent(attributes *syscall.SysProcAttr) *syscall.SysProcAttr {
	return attributes
}
