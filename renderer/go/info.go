package main

import (
	"io/fs"
	"time"
)

// info is what a walk tells of an entry. A repository keeps no times.
type info struct {
	name  string
	entry entry
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.entry.file)) }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.entry.isDir }
func (i info) Sys() any           { return nil }

func (i info) Mode() fs.FileMode {
	if i.entry.isDir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
