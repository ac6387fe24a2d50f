package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// errReadOnly is the error of each operation that would change a file.
var errReadOnly = errors.New("the files of a repository are not changed while they are rendered")

// errUnused is the error of each operation that no render needs.
var errUnused = errors.New("this operation is not supported while a repository is rendered")

// entry is the file or directory at a path. The zero value means that there is neither.
type entry struct {
	file  []byte
	names []string
	isDir bool
	isAny bool
}

// repository is the file system that one render sees: the files of a repository at one revision. It requests every file and
// folder over the pipe, each only once. So the program at the other end of the pipe knows exactly which files and folders
// the render depends on. Paths are absolute here, and the repository's root is "/", or else mount.
type repository struct {
	conn *conn
	// mount is the path of the repository's root; empty for "/".
	mount   string
	entries map[string]entry
	// remotes has other repositories that the render reads from, by the paths of their roots here.
	remotes map[string]remote
	// hasBases is true if kustomizations may name remote bases.
	hasBases bool
	// edit has, for some paths, a function that changes the file's content before Kustomize sees it.
	edit map[string]func([]byte) []byte
	// broken is the error of the pipe. After it, nothing more can be requested.
	broken error
	// refused says why a remote base cannot be used. After that, nothing more is read.
	refused *failure
}

func newRepository(c *conn) *repository {
	return &repository{
		conn: c, entries: map[string]entry{}, edit: map[string]func([]byte) []byte{}, remotes: map[string]remote{},
	}
}

func absolute(name string) string {
	return path.Clean("/" + filepath.ToSlash(name))
}

// at returns the file or directory at a path.
func (r *repository) at(name string) (entry, error) {
	name = absolute(name)
	if known, ok := r.entries[name]; ok {
		return known, nil
	}
	if r.broken != nil {
		return entry{}, r.broken
	}
	if r.refused != nil {
		return entry{}, r.refused
	}
	if _, is := below(name, r.mount); r.mount != "" && !is {
		if _, _, is := r.remoteAt(name); !is {
			return entry{}, nil
		}
	}
	found, err := r.ask(name)
	if errors.As(err, &r.refused) {
		return entry{}, err
	}
	if err != nil {
		r.broken = err
		return entry{}, err
	}
	r.entries[name] = found
	return found, nil
}

func (r *repository) ask(name string) (entry, error) {
	if err := r.conn.write(frameAsk, []byte(r.inRepository(name))); err != nil {
		return entry{}, err
	}
	kind, body, err := r.conn.read()
	if err != nil {
		return entry{}, unexpected(err)
	}
	switch kind {
	case frameFile:
		if r.hasBases && isKustomization(name) {
			if body, err = r.withRemotes(name, body); err != nil {
				return entry{}, err
			}
		}
		if edit := r.edit[name]; edit != nil {
			body = edit(body)
		}
		return entry{file: body, isAny: true}, nil
	case frameDirectory:
		var names []string
		if err := json.Unmarshal(body, &names); err != nil {
			return entry{}, fmt.Errorf("%w: the names of a directory: %w", errFrame, err)
		}
		for _, name := range names {
			if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
				return entry{}, fmt.Errorf("%w: '%s' is not the name of a file", errFrame, name)
			}
		}
		sort.Strings(names)
		return entry{names: names, isDir: true, isAny: true}, nil
	case frameAbsent:
		return entry{}, nil
	}
	return entry{}, fmt.Errorf("%w: kind %q", errFrame, kind)
}

// add adds a file that is not in the repository, and its folder.
func (r *repository) add(name string, content []byte) {
	r.entries[name] = entry{file: content, isAny: true}
	folder := r.entries[path.Dir(name)]
	folder.names, folder.isDir, folder.isAny = append(folder.names, path.Base(name)), true, true
	r.entries[path.Dir(name)] = folder
}

// inRepository returns a path as it is in the repository, relative to its root. The path of a file of a remote repository begins
// with the name of that repository.
func (r *repository) inRepository(name string) string {
	if found, rest, is := r.remoteAt(name); is {
		return found.Root + "//" + rest
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, r.mount), "/")
}

// asInRepository replaces the paths in a text of Kustomize by those that they would have if the repository's root were "/".
func (r *repository) asInRepository(text string) string {
	for mount, one := range r.remotes {
		at := regexp.MustCompile(`(?:(?:\.\./)*\.\.)?/?` + regexp.QuoteMeta(strings.TrimPrefix(mount, "/")) + "(/?)")
		text = at.ReplaceAllString(text, strings.ReplaceAll(one.Root, "$", "$$")+"$1$1")
	}
	if r.mount == "" {
		return text
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, r.mount+"/", "/"), r.mount, "/")
}

// found returns the path in the repository of the file that was read and whose path ends with `end`. If there is no such file, or
// more than one, it returns `end`.
func (r *repository) found(end string) string {
	var found []string
	for name, entry := range r.entries {
		if entry.isAny && !entry.isDir && (name == absolute(end) || strings.HasSuffix(name, "/"+end)) {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return r.inRepository(found[0])
	}
	return end
}

// hasRead returns whether the file at a path was read.
func (r *repository) hasRead(name string) bool {
	known := r.entries[absolute(name)]
	return known.isAny && !known.isDir
}

func notThere(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (r *repository) IsDir(name string) bool {
	found, err := r.at(name)
	return err == nil && found.isDir
}

func (r *repository) Exists(name string) bool {
	found, err := r.at(name)
	return err == nil && found.isAny
}

func (r *repository) ReadFile(name string) ([]byte, error) {
	found, err := r.at(name)
	switch {
	case err != nil:
		return nil, err
	case found.isDir:
		return nil, fmt.Errorf("'%s' is a folder", absolute(name))
	case !found.isAny:
		return nil, notThere("read", name)
	}
	return append([]byte(nil), found.file...), nil
}

func (r *repository) ReadDir(name string) ([]string, error) {
	found, err := r.at(name)
	switch {
	case err != nil:
		return nil, err
	case !found.isAny:
		return nil, notThere("list", name)
	case !found.isDir:
		return nil, fmt.Errorf("'%s' is not a folder", absolute(name))
	}
	return append([]string(nil), found.names...), nil
}

func (r *repository) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	clean := absolute(name)
	found, err := r.at(clean)
	switch {
	case err != nil:
		return "", "", err
	case found.isDir:
		return filesys.ConfirmedDir(clean), "", nil
	case found.isAny:
		return filesys.ConfirmedDir(path.Dir(clean)), path.Base(clean), nil
	}
	return "", "", fmt.Errorf("'%s' does not exist in the repository", strings.TrimPrefix(clean, "/"))
}

func (r *repository) Open(string) (filesys.File, error)   { return nil, errReadOnly }
func (r *repository) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (r *repository) Mkdir(string) error                  { return errReadOnly }
func (r *repository) MkdirAll(string) error               { return errReadOnly }
func (r *repository) RemoveAll(string) error              { return errReadOnly }
func (r *repository) WriteFile(string, []byte) error      { return errReadOnly }

// No render calls these two functions. Kustomize needs them only to edit and copy files.
func (r *repository) Glob(string) ([]string, error)        { return nil, errUnused }
func (r *repository) Walk(string, filepath.WalkFunc) error { return errUnused }
